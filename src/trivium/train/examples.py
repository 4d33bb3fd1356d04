"""A data set, checked once and brought into the form that the compiled programs read."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Examples(NamedTuple):
    """A data set of N examples.

    values: [N, ...]; for variable-length inputs all sequences end to end, [sum of T_i, ...],
    so that no padding is stored. labels: [N, ...], or None.
    offsets, lengths: [N] int32, where each sequence begins and how long it is; None for arrays.
    """

    values: Any
    labels: Any = None
    offsets: Any = None
    lengths: Any = None

    @property
    def size(self) -> int:
        """N, the number of examples."""
        return len(self.values if self.lengths is None else self.lengths)


def pair(data, name) -> Examples:
    """Prepare a pair (inputs, labels). Raises ValueError or TypeError that names the argument."""
    if not isinstance(data, (tuple, list)) or len(data) != 2 or data[1] is None:
        what = f"{len(data)} items" if isinstance(data, (tuple, list)) else type(data).__name__
        what = "labels None" if what == "2 items" else what
        raise TypeError(f"{name} must be a pair (inputs, labels), got {what}")
    inputs, labels = data
    examples = prepare(inputs, f"{name}: inputs")
    labels = _array(labels, f"{name}: labels")
    if labels.ndim == 0 or len(labels) != examples.size:
        raise ValueError(
            f"{name}: expected one label for each of {examples.size} inputs, "
            f"got labels of shape {labels.shape}"
        )
    _check_finite(labels, f"{name}: labels")
    return examples._replace(labels=labels)


def prepare(inputs, name) -> Examples:
    """Prepare inputs without labels. Raises ValueError or TypeError that names the argument."""
    if isinstance(inputs, np.ndarray) and inputs.dtype == object:
        inputs = list(inputs)
    if isinstance(inputs, (list, tuple)):
        examples = _join(inputs, name)
    else:
        examples = Examples(_array(inputs, name))
        if examples.values.ndim == 0:
            raise ValueError(f"{name} must be an array [N, ...], got a single number")
        if examples.size == 0:
            raise ValueError(f"{name} hold no example")
    _check_finite(examples.values, name, examples.offsets)
    return examples


def _join(sequences, name):
    """Lay variable-length arrays end to end."""
    if not sequences:
        raise ValueError(f"{name} hold no example")
    arrays = [_array(sequence, f"{name}[{i}]") for i, sequence in enumerate(sequences)]
    # An empty Python list has neither a type nor a depth of its own: the others decide.
    full = [array for array in arrays if array.size] or arrays[:1]
    shape, tail = full[0].shape, full[0].shape[1:]
    if len(shape) not in (1, 2):
        raise ValueError(
            f"{name}: a list must hold sequences [T] or [T, D], got one of shape {shape}; "
            "stack arrays of one shape into a single array [N, ...]"
        )
    for i, array in enumerate(arrays):
        if array.ndim == 0 or (array.shape[1:] != tail and array.shape != (0,)):
            expected = "[T]" if not tail else f"[T, {tail[0]}]"
            raise ValueError(f"{name}[{i}] must have shape {expected}, got {array.shape}")
    types = {array.dtype for array in full}
    if len(types) > 1:
        raise ValueError(f"{name} must share one type, got {sorted(map(str, types))}")
    lengths = np.array([len(array) for array in arrays], np.int64)
    if lengths.sum() > np.iinfo(np.int32).max:
        raise ValueError(f"{name} hold {lengths.sum()} steps, more than a 32-bit index reaches")
    values = np.concatenate(full)
    if not len(values):
        values = np.zeros((1, *tail), values.dtype)  # a gather needs something to read
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return Examples(values, None, offsets.astype(np.int32), lengths.astype(np.int32))


def _array(values, name):
    """The array in the type it trains in: 64-bit numbers become 32-bit, all others stay."""
    if not isinstance(values, jax.Array):
        try:
            values = np.asarray(values)
        except ValueError as error:
            raise ValueError(f"{name} must be an array of one shape: {error}") from None
    kind = values.dtype
    if not any(jax.dtypes.issubdtype(kind, numbers) for numbers in (np.number, np.bool_)):
        raise TypeError(f"{name} must be numbers, got type {kind}")
    narrow = jax.dtypes.canonicalize_dtype(kind)
    if kind == narrow:
        return values
    if np.issubdtype(kind, np.integer) and values.size:
        limits = np.iinfo(narrow)
        if values.min() < limits.min or values.max() > limits.max:
            raise ValueError(f"{name} must fit {narrow}, got {values.min()} to {values.max()}")
    with np.errstate(over="ignore"):  # what overflows is then reported as not finite
        return values.astype(narrow)


def _check_finite(values, name, offsets=None):
    if not jax.dtypes.issubdtype(values.dtype, np.inexact):
        return
    # np.isfinite of a jax.Array would bring it to the host.
    finite = jnp.isfinite(values) if isinstance(values, jax.Array) else np.isfinite(values)
    if bool(finite.all()):
        return
    example = int(np.argmin(np.asarray(finite).reshape(len(values), -1).all(axis=1)))
    if offsets is not None:
        example = int(np.searchsorted(offsets, example, side="right")) - 1
    raise ValueError(f"{name} must be finite, got NaN or infinity in example {example}")
