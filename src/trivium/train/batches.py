"""Which examples form a batch, and how wide it is padded.

Everything is decided on the host from (lengths, batch size, seed, epoch) alone, so a resumed run
sees the batches that an uninterrupted one would have seen.
"""

from typing import Any, NamedTuple

import jax
import numpy as np


class Examples(NamedTuple):
    """A data set as the compiled step reads it.

    values: [N, ...]; for variable-length inputs all sequences end to end, [sum of T_i, ...],
    so that no padding is stored. labels: [N, ...] or None.
    offsets, lengths: [N] int32, where each sequence begins and how long it is; None for arrays.
    """

    values: Any
    labels: Any
    offsets: Any = None
    lengths: Any = None

    @property
    def count(self) -> int:
        """N, the number of examples."""
        return len(self.values if self.lengths is None else self.lengths)


class Order(NamedTuple):
    """The batches of one pass.

    rows: [steps, batch] int32, the example in each place; a place that only fills up a batch holds
    ~row (negative), a real example that counts with weight zero.
    widths: the padded length of each batch, or None where inputs are one array.
    """

    rows: np.ndarray
    widths: list


def prepare(inputs, labels=None, *, name="data") -> Examples:
    """Check inputs and labels and bring them into the form that the compiled step reads.

    Raises ValueError or TypeError that names the argument, what was expected and what came.
    """
    if isinstance(inputs, np.ndarray) and inputs.dtype == object:
        inputs = list(inputs)
    if isinstance(inputs, (list, tuple)):
        values, offsets, lengths = _join(inputs, name)
        count = len(lengths)
    else:
        values, offsets, lengths = _array(inputs, f"{name}: inputs"), None, None
        if values.ndim == 0:
            raise ValueError(f"{name}: inputs must be an array [N, ...], got a single number")
        count = len(values)
    if count == 0:
        raise ValueError(f"{name}: inputs hold no example")
    if offsets is None:
        _check_finite(values, f"{name}: inputs")
    else:
        _check_finite(values, f"{name}: inputs", offsets)
    if labels is not None:
        labels = _array(labels, f"{name}: labels")
        if labels.ndim == 0 or len(labels) != count:
            raise ValueError(
                f"{name}: expected one label for each of {count} inputs, "
                f"got labels of shape {labels.shape}"
            )
        _check_finite(labels, f"{name}: labels")
    return Examples(values, labels, offsets, lengths)


def unpack(data, name):
    """Split (inputs, labels), or say that it is not such a pair."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        what = f"{len(data)} items" if isinstance(data, (tuple, list)) else type(data).__name__
        raise TypeError(f"{name} must be a pair (inputs, labels), got {what}")
    inputs, labels = data
    if labels is None:
        raise TypeError(f"{name} must be a pair (inputs, labels), got labels None")
    return inputs, labels


def _array(values, name):
    """The array in the type it trains in: 64-bit numbers become 32-bit, others stay."""
    if not isinstance(values, jax.Array):
        try:
            values = np.asarray(values)
        except ValueError as error:
            raise ValueError(
                f"{name} must be an array, or a list of arrays of differing length: {error}"
            ) from None
    kind = jax.dtypes.canonicalize_dtype(values.dtype) if values.dtype.kind in "iufc" else None
    if values.dtype == bool or jax.dtypes.issubdtype(values.dtype, np.inexact):
        kind = jax.dtypes.canonicalize_dtype(values.dtype)
    if kind is None or isinstance(values, jax.Array):
        if kind is None:
            raise TypeError(f"{name} must be numbers, got an array of type {values.dtype}")
        return values
    if values.dtype.kind in "iu" and values.dtype != kind and values.size:
        limits = np.iinfo(kind)
        if values.min() < limits.min or values.max() > limits.max:
            raise ValueError(f"{name} holds integers that do not fit {np.dtype(kind).name}")
    with np.errstate(over="ignore"):  # what overflows is reported as not finite, with its place
        return values.astype(kind, copy=False)


def _join(sequences, name):
    """Lay variable-length arrays end to end: values [sum of T_i, ...], offsets, lengths."""
    if not sequences:
        raise ValueError(f"{name}: inputs hold no example")
    arrays = [_array(s, f"{name}: inputs[{i}]") for i, s in enumerate(sequences)]
    tail, ndim = arrays[0].shape[1:], arrays[0].ndim
    if ndim not in (1, 2):
        raise ValueError(
            f"{name}: a list must hold sequences [T] or [T, D], got inputs[0] of shape "
            f"{arrays[0].shape}; stack arrays of one shape into a single array [N, ...]"
        )
    kinds = {a.dtype for a in arrays if len(a)} or {arrays[0].dtype}
    floating = {jax.dtypes.issubdtype(kind, np.inexact) for kind in kinds}
    if len(floating) > 1:
        raise ValueError(
            f"{name}: sequences must share one type, got {sorted(str(kind) for kind in kinds)}"
        )
    for i, a in enumerate(arrays):
        # An empty Python list has neither a type nor a depth of its own.
        if a.shape[1:] != tail and not (a.ndim == 1 and len(a) == 0):
            expected = "[T]" if ndim == 1 else f"[T, {tail[0]}]"
            raise ValueError(
                f"{name}: expected inputs[{i}] of shape {expected} as inputs[0] has, got {a.shape}"
            )
    lengths = np.array([len(a) for a in arrays], np.int64)
    if lengths.sum() > np.iinfo(np.int32).max:
        raise ValueError(f"{name}: {lengths.sum()} steps in all do not fit a 32-bit index")
    full = [np.asarray(a) for a in arrays if len(a)]
    kind = np.result_type(*kinds) if len(kinds) > 1 else kinds.pop()
    # One row of zeros stays when every sequence is empty: a gather needs something to read.
    values = np.concatenate(full).astype(kind, copy=False) if full else np.zeros((1, *tail), kind)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return values, offsets.astype(np.int32), lengths.astype(np.int32)


def _check_finite(values, name, offsets=None):
    if not jax.dtypes.issubdtype(values.dtype, np.inexact):
        return
    xp = jax.numpy if isinstance(values, jax.Array) else np
    if bool(xp.isfinite(values).all()):
        return
    bad = int(np.argmin(np.isfinite(np.asarray(values)).reshape(len(values), -1).all(axis=1)))
    if offsets is not None:
        bad = int(np.searchsorted(offsets, bad, side="right")) - 1
    raise ValueError(f"{name} must be finite, got NaN or infinity in example {bad}")


def bucket_widths(lengths, buckets):
    """The at most `buckets` widths that pad the fewest steps in all.

    lengths: [N] integers. Each sequence is padded to the smallest width that holds it; the widest
    is the longest sequence's length. Exact, by dynamic programming over the distinct lengths
    (above 512 of them, over 512 quantiles: a long tail of lengths must not cost minutes).
    """
    distinct, counts = np.unique(np.maximum(lengths, 1), return_counts=True)
    if len(distinct) > 512:
        ranks = np.linspace(0, counts.sum() - 1, 512).round().astype(int)
        kept = np.unique(np.append(np.sort(np.maximum(lengths, 1))[ranks], distinct[-1]))
        counts = np.add.reduceat(
            counts, np.concatenate([[0], np.searchsorted(distinct, kept[:-1], side="right")])
        )
        distinct = kept
    covered = np.concatenate([[0], np.cumsum(counts)])
    # cost[j]: padded steps of the j shortest distinct lengths with the widths chosen so far.
    cost = covered * np.concatenate([[0], distinct])
    back = [np.zeros(len(cost), int)]
    for _ in range(min(buckets, len(distinct)) - 1):
        # With the last width distinct[j - 1] alone responsible for lengths i .. j - 1.
        table = cost[:, None] + (covered[None, 1:] - covered[:, None]) * distinct[None, :]
        table = np.where(
            np.arange(len(cost))[:, None] <= np.arange(len(distinct))[None, :],
            table,
            np.iinfo(np.int64).max,
        )
        back.append(np.concatenate([[0], table.argmin(axis=0)]))
        cost = np.concatenate([[0], table.min(axis=0)])
    widths, end = [], len(distinct)
    for choice in reversed(back):
        if end == 0:
            break
        widths.append(int(distinct[end - 1]))
        end = int(choice[end])
    return widths[::-1]


def shuffled(count, batch_size, *, lengths=None, widths=None, seed=0, epoch=0) -> Order:
    """The batches of a training epoch, a function of its arguments alone.

    Arrays: a random permutation cut into batches. Sequences: each bucket is shuffled and cut;
    what is left over joins the next wider bucket, so that an epoch has ceil(N / batch) steps and
    one batch at most is filled up; then the batches are visited in random order.
    """
    random = np.random.default_rng([seed, epoch])
    if lengths is None:
        rows = random.permutation(count)
        rows = _fill(rows, batch_size)
        return Order(rows, [None] * len(rows))
    bucket = np.searchsorted(widths, lengths)
    parts, padded = [], []
    left = np.zeros(0, np.int64)
    for k, width in enumerate(widths):
        rows = random.permutation(np.concatenate([left, np.flatnonzero(bucket == k)]))
        whole = len(rows) - len(rows) % batch_size if k < len(widths) - 1 else len(rows)
        rows, left = rows[:whole], rows[whole:]
        if len(rows):
            parts.append(_fill(rows, batch_size))
            padded += [width] * len(parts[-1])
    rows = np.concatenate(parts)
    visit = random.permutation(len(rows))
    return Order(rows[visit], [padded[i] for i in visit])


def in_order(count, batch_size, *, lengths=None, widths=None) -> Order:
    """The batches of an evaluation: as stored, or from the shortest sequence to the longest."""
    if lengths is None:
        rows = _fill(np.arange(count), batch_size)
        return Order(rows, [None] * len(rows))
    rows = _fill(np.argsort(lengths, kind="stable"), batch_size)
    longest = np.asarray(lengths)[np.where(rows < 0, ~rows, rows)].max(axis=1)
    return Order(rows, [widths[i] for i in np.searchsorted(widths, longest)])


def _fill(rows, batch_size):
    """Cut rows into batches [steps, batch]; ~row fills the last one up.

    Fillers are other rows rather than one row repeated or zeros: they count nothing in loss and
    metric, but a layer that looks across the batch (batch normalization) sees real examples.
    """
    missing = -len(rows) % batch_size
    filled = np.concatenate([rows, ~np.resize(rows, missing)]) if missing else rows
    return filled.reshape(-1, batch_size).astype(np.int32)
