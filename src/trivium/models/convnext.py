"""ConvNeXt: a convolutional network rebuilt with what the Vision Transformer had taught."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from trivium.kernels import conv2d
from trivium.models.language import check_sizes
from trivium.models.layers import Conv, LayerNorm
from trivium.models.vit import check_images

_EPSILON = 1e-6


class ConvNeXt(nnx.Module):
    """Classify images: patches, then stages of blocks, each at half the resolution of the last.

    size: (height, width) of the images. channels, classes: numbers of them. patch: side and stride
    of the first filters; patch * 2^(stages - 1) divides the size. widths, depths: channels and
    blocks of each stage. window: side of the filters that mix positions, odd.

    Raises ValueError where sizes are not positive or do not fit.
    Source: Liu et al. 2022.
    """

    def __init__(
        self,
        classes: int,
        *,
        size=(28, 28),
        channels: int = 1,
        patch: int = 2,
        widths=(24, 48),
        depths=(2, 2),
        window: int = 7,
        rngs: nnx.Rngs,
    ):
        check_sizes(classes=classes, channels=channels, patch=patch, window=window)
        if not widths or len(widths) != len(depths) or min((*widths, *depths)) < 1:
            raise ValueError(
                f"widths and depths must be as many positive numbers, not {widths} and {depths}"
            )
        shrink = patch * 2 ** (len(widths) - 1)
        if min(size) < 1 or any(side % shrink for side in size):
            raise ValueError(f"size must be multiples of {shrink}, not {tuple(size)}")
        if window % 2 == 0:
            raise ValueError(f"window must be odd, not {window}")
        self.shape = (*size, channels)
        self.stem = Conv(
            channels, widths[0], size=(patch, patch), stride=patch, padding="VALID", rngs=rngs
        )
        self.norm_stem = LayerNorm(widths[0], epsilon=_EPSILON)
        self.stages = nnx.List(
            nnx.List(ConvNeXtBlock(width, window=window, rngs=rngs) for _ in range(depth))
            for width, depth in zip(widths, depths, strict=True)
        )
        self.halve = nnx.List(Halve(before, after, rngs=rngs) for before, after in pairwise(widths))
        self.norm = LayerNorm(widths[-1], epsilon=_EPSILON)
        self.dense = nnx.Linear(widths[-1], classes, rngs=rngs)

    def __call__(self, images) -> jax.Array:
        """Map images [B, H, W, C] to logits [B, classes]; other shapes raise ValueError."""
        x = self.norm_stem(self.stem(check_images(images, self.shape)))
        for number, stage in enumerate(self.stages):
            if number:
                x = self.halve[number - 1](x)
            for block in stage:
                x = block(x)
        return self.dense(self.norm(x.mean(axis=(1, 2))))


class ConvNeXtBlock(nnx.Module):
    """Mix positions, feature by feature; then features, position by position; add.

    The two halves are those of a Transformer block, in one residual branch.
    """

    def __init__(self, width: int, *, window: int = 7, rngs: nnx.Rngs):
        self.filters = nnx.Param(
            nnx.initializers.normal(1 / window)(rngs.params(), (window, window, 1, width))
        )
        self.norm = LayerNorm(width, epsilon=_EPSILON)
        self.expand = nnx.Linear(width, 4 * width, rngs=rngs)
        self.contract = nnx.Linear(4 * width, width, rngs=rngs)
        # A small share of each block at first: the network begins near the identity.
        self.share = nnx.Param(jnp.full(width, 0.1))

    def __call__(self, x) -> jax.Array:
        """Map x [B, H, W, D] to the same shape."""
        mixed = self.norm(conv2d(x, self.filters[...], groups=x.shape[-1]))
        return x + self.share[...] * self.contract(jax.nn.gelu(self.expand(mixed)))


class Halve(nnx.Module):
    """Half the resolution, more channels: normalize, then a 2x2 filter at stride 2."""

    def __init__(self, before: int, after: int, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(before, epsilon=_EPSILON)
        self.filters = Conv(before, after, size=(2, 2), stride=2, padding="VALID", rngs=rngs)

    def __call__(self, x) -> jax.Array:
        """Map x [B, H, W, D] to [B, H / 2, W / 2, D']."""
        return self.filters(self.norm(x))
