"""Quantization: weights as small integers with a scale for each group of them."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from trivium.kernels import checks


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["codes", "scales"],
    meta_fields=["bits", "shape"],
)
@dataclass(frozen=True, eq=False)
class Quantized:
    """A matrix [D, F] as integers. It is a pytree: it may go into and out of `jax.jit`.

    codes: int8 [D, F] for more than 4 bits; else uint8 [ceil(D/2), F], two to a byte: row 2i in
    the low half of byte i, row 2i + 1 in the high one, each in two's complement.
    scales [G, 1] or [G, F]: the size of one step, for each of G groups of rows.
    bits: 2 to 8. shape: (D, F).
    """

    codes: jax.Array
    scales: jax.Array
    bits: int
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales together."""
        return int(self.codes.nbytes + self.scales.nbytes)


def quantize(w, *, bits=8, group=None, per_channel=True) -> Quantized:
    """Round a matrix to integers times a scale: w ≈ scale · q, |q| at most 2^(bits-1) - 1.

    w [D, F], inputs by outputs. bits: 2 to 8; up to 4 are stored two to a byte, more in a byte
    each. group: how many successive rows (inputs) share a scale, a divisor of D; all D by default.
    per_channel: whether each column (output) has scales of its own.

    A group's scale is its largest absolute value over 2^(bits-1) - 1, so no weight is off by more
    than half of it; zero stays zero, and a group of zeros has the scale 0. Scales have w's type.
    Raises ValueError naming the argument where shape, type or options do not fit, and where w
    holds a number that is not finite (which under `jax.jit` cannot be seen).
    Source: Jacob et al. 2018, the symmetric form.
    """
    w = checks.array("w", w, "D F", {})
    rows, columns = w.shape
    checks.require(rows > 0 and columns > 0, "w", "at least one row and one column", w.shape)
    checks.require(type(bits) is int and 2 <= bits <= 8, "bits", "an integer from 2 to 8", bits)
    group = rows if group is None else group
    checks.require(
        type(group) is int and group > 0 and rows % group == 0,
        "group",
        f"a divisor of the {rows} rows",
        group,
    )
    if not isinstance(w, jax.core.Tracer):
        checks.require(bool(jnp.isfinite(w).all()), "w", "finite numbers", "NaN or infinity")
    # Only what changes the program is static: the numbers of bits share their compilations.
    codes, scales = _quantize(
        w, 2 ** (bits - 1) - 1, packed=bits <= 4, group=group, per_channel=bool(per_channel)
    )
    return Quantized(codes, scales, bits, (rows, columns))


def dequantize(quantized: Quantized) -> jax.Array:
    """The matrix [D, F] that the integers stand for, in the scales' type.

    Raises ValueError for anything but a `Quantized` whose arrays fit its shape.
    """
    checks.require(
        isinstance(quantized, Quantized), "quantized", "a Quantized", type(quantized).__name__
    )
    rows, columns = quantized.shape
    packed = quantized.bits <= 4
    expected = ((rows + 1) // 2 if packed else rows, columns)
    checks.require(
        quantized.codes.shape == expected, "codes", f"shape {expected}", quantized.codes.shape
    )
    return _dequantize(quantized.codes, quantized.scales, rows=rows, packed=packed)


@partial(jax.jit, static_argnames=("packed", "group", "per_channel"))
def _quantize(w, top, *, packed, group, per_channel):
    grouped = w.reshape(-1, group, w.shape[1])
    sizes = jnp.abs(grouped).max(axis=1 if per_channel else (1, 2), keepdims=True)
    scales = sizes / top
    steps = jnp.where(scales > 0, scales, 1)
    # Clipped, because a scale too small for its type's digits can round to less than sizes / top.
    codes = jnp.clip(jnp.round(grouped / steps), -top, top).astype(jnp.int8).reshape(w.shape)
    return _pack(codes) if packed else codes, scales[:, 0, :]


@partial(jax.jit, static_argnames=("rows", "packed"))
def _dequantize(codes, scales, *, rows, packed):
    if packed:
        codes = _unpack(codes)[:rows]
    grouped = codes.reshape(len(scales), -1, codes.shape[1]).astype(scales.dtype)
    return (grouped * scales[:, None, :]).reshape(codes.shape)


def _pack(codes):
    """int8 [D, F] with values of 4 bits -> uint8 [ceil(D/2), F]."""
    if len(codes) % 2:
        codes = jnp.concatenate([codes, jnp.zeros_like(codes[:1])])
    halves = jax.lax.bitcast_convert_type(codes, jnp.uint8) & jnp.uint8(15)
    return halves[0::2] | (halves[1::2] << jnp.uint8(4))


def _unpack(packed):
    """uint8 [D/2, F] -> int8 [D, F]."""
    halves = jnp.stack([packed & jnp.uint8(15), packed >> jnp.uint8(4)], axis=1)
    signed = jax.lax.bitcast_convert_type(halves, jnp.int8)
    signed = jnp.where(signed > 7, signed - jnp.int8(16), signed)
    return signed.reshape(-1, packed.shape[1])
