"""The Vision Transformer: an image is a sequence of patches."""

import jax
import jax.numpy as jnp
from flax import nnx

from trivium.kernels import attention
from trivium.models.language import FeedForward, check_heads, check_sizes, linear, split_heads
from trivium.models.layers import Conv, LayerNorm

_EPSILON = 1e-6


class ViT(nnx.Module):
    """Classify images: cut into patches, let every patch look at every other, average, answer.

    size: (height, width) of the images, multiples of `patch`. channels, classes: numbers of them.
    patch: side of a patch. width: numbers a patch (D). depth: blocks. heads: divide the width.
    hidden: of the feed-forward layers; four times the width by default.

    Raises ValueError where sizes are not positive or do not divide.
    Source: Dosovitskiy et al. 2021; the average in place of a class token: Beyer et al. 2022.
    """

    def __init__(
        self,
        classes: int,
        *,
        size=(28, 28),
        channels: int = 1,
        patch: int = 4,
        width: int = 48,
        depth: int = 3,
        heads: int = 2,
        hidden: int | None = None,
        rngs: nnx.Rngs,
    ):
        check_sizes(classes=classes, channels=channels, patch=patch, depth=depth)
        height, breadth = size
        if min(size) < 1 or height % patch or breadth % patch:
            raise ValueError(f"size must be multiples of patch={patch}, not {tuple(size)}")
        check_heads(width, heads)
        self.shape = (height, breadth, channels)
        self.patches = Conv(
            channels, width, size=(patch, patch), stride=patch, padding="VALID", rngs=rngs
        )
        count = height // patch * (breadth // patch)
        self.positions = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (count, width)))
        self.blocks = nnx.List(
            EncoderBlock(width, heads, hidden or 4 * width, rngs=rngs) for _ in range(depth)
        )
        self.norm = LayerNorm(width, epsilon=_EPSILON)
        self.dense = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, images) -> jax.Array:
        """Map images [B, H, W, C] to logits [B, classes]; other shapes raise ValueError."""
        x = self.patches(check_images(images, self.shape))
        x = x.reshape(len(x), -1, x.shape[-1]) + self.positions[...]
        for block in self.blocks:
            x = block(x)
        return self.dense(self.norm(x).mean(axis=1))


class EncoderBlock(nnx.Module):
    """Pre-norm Transformer block in which every position attends to every other."""

    def __init__(self, width: int, heads: int, hidden: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.norm_attend = LayerNorm(width, epsilon=_EPSILON)
        self.norm_transform = LayerNorm(width, epsilon=_EPSILON)
        self.project = linear(width, 3 * width, rngs=rngs)
        self.mix = linear(width, width, rngs=rngs)
        self.transform = FeedForward(width, hidden, rngs=rngs)

    def __call__(self, x) -> jax.Array:
        """Map x [B, T, D] to the same shape."""
        q, k, v = split_heads(self.project(self.norm_attend(x)), self.heads)
        x = x + self.mix(attention(q, k, v).reshape(x.shape))
        return x + self.transform(self.norm_transform(x))[0]


def check_images(images, shape: tuple[int, int, int]) -> jax.Array:
    """Images as an array [B, *shape] of floating point, or a ValueError that says what came."""
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[1:] != shape:
        raise ValueError(f"images must have shape [B, {', '.join(map(str, shape))}], not "
                         f"{images.shape}")  # fmt: skip
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be floating point, not {images.dtype}: scale pixels to 0..1")
    return images
