"""Argument checks: every kernel's `ValueError` is worded here."""

import math
import numbers
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def require(condition: bool, argument: str, expected: str, received: object) -> None:
    """Raise the `ValueError` that names argument, expected and received unless `condition`."""
    if not condition:
        raise ValueError(f"{argument}: expected {expected}, received {received}")


def array(argument: str, value: Any, legend: str, sizes: dict[str, int], dtype=None) -> jax.Array:
    """`value` as a floating-point array whose axes fit `legend`.

    legend: the axes as docstrings write them, such as "B T D" or "D 4H"; a leading "..." stands
        for any number of axes.
    sizes: axis name -> size. An axis met for the first time is added, a known one must agree.
    dtype: the type `value` must have; None allows every floating-point type.
    """
    value = _as_array(argument, value)
    require(
        jnp.issubdtype(value.dtype, jnp.floating),
        argument,
        "a floating-point array",
        f"one of type {value.dtype}",
    )
    if dtype is not None:
        require(
            value.dtype == dtype,
            argument,
            f"type {jnp.dtype(dtype).name} like the first argument",
            f"{value.dtype} (convert with .astype)",
        )
    axes = legend.split()
    shape = value.shape
    if axes[0] == "...":
        axes = axes[1:]
        fits = len(shape) >= len(axes)
        shape = shape[len(shape) - len(axes) :]
    else:
        fits = len(shape) == len(axes)
    fits = fits and all(_fits(axis, size, sizes) for axis, size in zip(axes, shape, strict=True))
    if not fits:
        raise ValueError(
            f"{argument}: expected shape {_describe(legend, sizes)}, received {value.shape}"
        )
    return value


def _as_array(argument: str, value: Any) -> jax.Array:
    if isinstance(value, jax.Array):
        return value
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{argument}: expected an array, received {type(value).__name__}"
        ) from error


def _multiple(axis: str) -> tuple[int, str]:
    """The axis "4H" is 4 times the axis "H"."""
    factor, name = re.fullmatch(r"(\d*)(\D.*)", axis).groups()  # type: ignore[union-attr]
    return int(factor or 1), name


def _fits(axis: str, size: int, sizes: dict[str, int]) -> bool:
    factor, name = _multiple(axis)
    if factor == 1:
        sizes.setdefault(name, size)
    return size == factor * sizes[name]


def _describe(legend: str, sizes: dict[str, int]) -> str:
    """Such as "[B, T, 4H] with B = 2, H = 8"."""
    names = [_multiple(axis)[1] for axis in legend.split() if axis != "..."]
    known = ", ".join(f"{name} = {sizes[name]}" for name in dict.fromkeys(names) if name in sizes)
    return f"[{', '.join(legend.split())}]" + (f" with {known}" if known else "")


def real(argument: str, value: Any) -> jax.Array:
    """`value` as an array of integers or floating-point numbers."""
    value = _as_array(argument, value)
    fits = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    require(fits, argument, "an array of real numbers", f"one of type {value.dtype}")
    return value


def at_least_one(argument: str, value: jax.Array, legend: str, axes: str) -> None:
    """Every one of `axes` must have a size above zero."""
    for axis, size in zip(legend.split(), value.shape, strict=True):
        require(
            axis not in axes.split() or size > 0,
            argument,
            f"shape [{', '.join(legend.split())}] with {axis} at least 1",
            value.shape,
        )


def broadcastable(
    argument: str, value: Any, shape: tuple[int, ...], legend: str, kind
) -> jax.Array:
    """`value` as an array of type class `kind` that broadcasts to `shape`, at its full rank."""
    value = _as_array(argument, value)
    noun = "a boolean array (True attends)" if kind is jnp.bool_ else "a floating-point array"
    require(jnp.issubdtype(value.dtype, kind), argument, noun, f"one of type {value.dtype}")
    fits = value.ndim <= len(shape) and all(
        size in (1, full) for size, full in zip(value.shape[::-1], shape[::-1], strict=False)
    )
    require(fits, argument, f"a shape that broadcasts to {legend} = {shape}", value.shape)
    return value.reshape((1,) * (len(shape) - value.ndim) + value.shape)


def lengths(value: Any, batch: int, limit: int, axis: str) -> jax.Array:
    """`lengths` as int32 [B], each from 0 to `limit`, the size of `axis`.

    Values can only be looked at outside a transformation; a traced length is used as it is, which
    means clipped to 0 and `limit`.
    """
    traced = isinstance(value, jax.core.Tracer)
    value = _as_array("lengths", value)
    require(
        jnp.issubdtype(value.dtype, jnp.integer),
        "lengths",
        "an integer array",
        f"one of type {value.dtype}",
    )
    require(value.shape == (batch,), "lengths", f"shape [B] with B = {batch}", value.shape)
    if not traced and not isinstance(value, jax.core.Tracer) and batch:
        known = np.asarray(value)  # under `jax.jit` even a known array's own min would be traced
        low, high = int(known.min()), int(known.max())
        require(
            low >= 0 and high <= limit,
            "lengths",
            f"values from 0 to {axis} = {limit}",
            f"values from {low} to {high}",
        )
    return value.astype(jnp.int32)


def flag(argument: str, value: Any) -> bool:
    """`value` as a Python bool."""
    require(isinstance(value, bool | np.bool_), argument, "True or False", repr(value))
    return bool(value)


def integer(argument: str, value: Any, minimum: int) -> int:
    """`value` as a Python int of at least `minimum`."""
    require(
        _is_integer(value) and value >= minimum,
        argument,
        f"an integer of at least {minimum}",
        repr(value),
    )
    return int(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def positive(argument: str, value: Any) -> float:
    """`value` as a finite Python float above zero."""
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
    fits = fits and math.isfinite(value) and value > 0
    require(fits, argument, "a finite number above 0", repr(value))
    return float(value)


def pair(argument: str, value: Any, minimum: int = 1) -> tuple[int, int]:
    """An int, meant for both axes, or a pair (vertical, horizontal)."""
    both: Any = (value, value) if _is_integer(value) else value
    fits = isinstance(both, tuple | list) and len(both) == 2
    fits = fits and all(_is_integer(n) and n >= minimum for n in both)
    require(fits, argument, f"an integer of at least {minimum}, or a pair of them", repr(value))
    return int(both[0]), int(both[1])


def accumulation(dtype) -> jnp.dtype:
    """The type to add up in: float64 for float64, float32 for everything narrower."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
