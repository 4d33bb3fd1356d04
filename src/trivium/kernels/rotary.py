"""Rotary embedding: a position is an angle, so that a product sees only how far apart two are."""

from functools import partial

import jax
import jax.numpy as jnp

from trivium.kernels import checks


def rotary(x, positions, *, base) -> jax.Array:
    """Rotates each pair of features by its position times the pair's own frequency.

    x [B, T, N, H], positions [T] or [B, T] (integers or floats) -> [B, T, N, H], of x's type.
    B sequences, T steps, N heads, H head size, even. Feature i is paired with feature i + H/2 (the
    halves, as in Llama and Hugging Face; not the neighbours 2i and 2i + 1 of the paper), and the
    pair turns by positions * base^(-2i/H) radians.

    base: a number above 0; 10000 in the paper.

    Angles are calculated in float32 (float64 for float64 input). Can be differentiated with
    respect to x and floating positions, in forward and reverse mode.
    Raises `ValueError` naming the argument where shapes, types or options do not fit.
    Source: Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021.
    """
    sizes: dict[str, int] = {}
    x = checks.array("x", x, "B T N H", sizes)
    checks.require(sizes["H"] % 2 == 0, "x", "an even head size H", sizes["H"])
    positions = checks.real("positions", positions)
    batch, steps = sizes["B"], sizes["T"]
    checks.require(
        positions.shape in ((steps,), (batch, steps)),
        "positions",
        f"shape [T] or [B, T] with B = {batch}, T = {steps}",
        positions.shape,
    )
    return _rotary(x, positions, base=checks.positive("base", base))


@partial(jax.jit, static_argnames="base")
def _rotary(x, positions, *, base):
    kind = checks.accumulation(x.dtype)
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=kind) / max(half, 1))
    angles = positions.astype(kind)[..., None, None] * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(kind), 2, axis=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
