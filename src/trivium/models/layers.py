"""Layers that several model families share: parameters around the kernels."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trivium.kernels import conv2d, layer_norm


class Conv(nnx.Module):
    """Filters sliding over images, with a bias for each filter.

    kernel [3, 3, C, F] for `size=(3, 3)`, bias [F]; Keras's defaults: Glorot uniform and zeros.
    The parameters are used in the images' own floating-point type.
    """

    def __init__(self, channels, filters, *, size=(3, 3), stride=1, padding="SAME", rngs: nnx.Rngs):
        self.kernel = nnx.Param(
            nnx.initializers.glorot_uniform()(rngs.params(), (*size, channels, filters))
        )
        self.bias = nnx.Param(jnp.zeros(filters))
        self.stride = stride
        self.padding = padding

    def __call__(self, images: jax.Array, *, bias: bool = True) -> jax.Array:
        """Map images [B, H, W, C] to feature maps [B, H', W', F]; `bias=False` leaves it to add."""
        kernel = self.kernel.astype(images.dtype)
        added = self.bias.astype(images.dtype) if bias else None
        return conv2d(images, kernel, added, stride=self.stride, padding=self.padding)


class LayerNorm(nnx.Module):
    """Normalize each vector to mean 0 and variance 1, then scale and shift it.

    scale [D] starts at one, offset [D] at zero. Source: Ba et al. 2016.
    """

    def __init__(self, width, *, epsilon=1e-12):
        self.scale = nnx.Param(jnp.ones(width))
        self.offset = nnx.Param(jnp.zeros(width))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize x [..., D] over its last axis; same shape, same type."""
        return layer_norm(x, self.scale[...], self.offset[...], epsilon=self.epsilon)


def checked_ids(name: str, ids, limit: int) -> jax.Array:
    """Integer ids [B, T] with values in [0, limit), as far as they can be known.

    Raises ValueError that names the argument.
    """
    if not isinstance(ids, jax.Array):
        ids = np.asarray(ids)
    if ids.ndim != 2 or ids.shape[1] == 0 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            f"{name} must be integers [B, T] with T at least 1, not {ids.dtype} {list(ids.shape)}"
        )
    if not isinstance(ids, jax.core.Tracer) and ids.size:
        known = np.asarray(ids)  # under `jax.jit` even a known array's own min would be traced
        low, high = int(known.min()), int(known.max())
        if low < 0 or high >= limit:
            raise ValueError(f"{name} must lie in [0, {limit}), not reach from {low} to {high}")
    return jnp.asarray(ids)
