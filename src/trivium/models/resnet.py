"""Residual networks: each block adds a correction to what it is given."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from trivium.kernels import conv2d
from trivium.models.language import check_sizes


class ResNet(nnx.Module):
    """Classify images: a stem, stages of residual blocks at falling resolution, mean, answer.

    classes: number of them. channels: 1 for gray, 3 for color. widths, depths: channels and blocks
    of each stage; from one stage to the next the resolution halves (rounded up). The first stage,
    whose maps are the largest and cost most, may have no block: then its maps are the stem's.
    Images may have any size.

    Normalization is by batch, as in the source: in use it is a constant scale and shift for each
    channel, which costs next to nothing. Its running statistics are `nnx.BatchStat`, which
    `trivium.train.fit` carries along and `evaluate` uses; call `eval()` before use and `train()`
    before training by hand.

    Raises ValueError where sizes are not positive or do not fit.
    Source: He et al. 2016; the last scale of a block starts at zero: Goyal et al. 2017.
    """

    def __init__(
        self,
        classes: int,
        *,
        channels: int = 1,
        widths: Sequence[int] = (16, 32, 64, 96),
        depths: Sequence[int] = (0, 1, 2, 2),
        rngs: nnx.Rngs,
    ):
        check_sizes(classes=classes, channels=channels)
        if not widths or len(widths) != len(depths) or min((*widths, *depths[1:])) < 1:
            raise ValueError(
                f"widths and depths must be as many positive numbers, not {widths} and {depths}"
            )
        if depths[0] < 0:
            raise ValueError(f"depths must begin with at least 0, not {depths[0]}")
        self.channels = channels
        self.widths = tuple(widths)
        self.stem = ConvNorm(channels, widths[0], rngs=rngs)
        befores = (widths[0], *widths[:-1])
        self.stages = nnx.List(
            nnx.List(
                ResidualBlock(
                    width if block else before,
                    width,
                    stride=2 if number and not block else 1,
                    rngs=rngs,
                )
                for block in range(depth)
            )
            for number, (before, width, depth) in enumerate(
                zip(befores, widths, depths, strict=True)
            )
        )
        self.dense = nnx.Linear(widths[-1], classes, rngs=rngs)

    def __call__(self, images) -> jax.Array:
        """Map images [B, H, W, C] to logits [B, classes]; raises ValueError as `features` does."""
        return self.dense(self.features(images)[-1].mean(axis=(1, 2)))

    def features(self, images) -> list[jax.Array]:
        """Map images [B, H, W, C] to the maps of every stage, the finest first.

        The maps of stage s are [B, ceil(H / 2^s), ceil(W / 2^s), widths[s]]. Raises ValueError for
        other numbers of channels or axes, for images without a pixel, and for integers.
        """
        images = jnp.asarray(images)
        if images.ndim != 4 or images.shape[-1] != self.channels or 0 in images.shape[1:3]:
            raise ValueError(f"images must have shape [B, H, W, {self.channels}], not "
                             f"{images.shape}")  # fmt: skip
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images must be floating point, not {images.dtype}: scale pixels to "
                             "0..1")  # fmt: skip
        x = jax.nn.relu(self.stem(images))
        maps = []
        for stage in self.stages:
            for block in stage:
                x = block(x)
            maps.append(x)
        return maps


class ResidualBlock(nnx.Module):
    """Two 3x3 convolutions, added to their input: relu(x + norm(conv(relu(norm(conv(x)))))).

    Where the number of channels or the resolution changes, a 1x1 convolution stands in for the
    identity.
    """

    def __init__(self, before: int, after: int, *, stride: int = 1, rngs: nnx.Rngs):
        self.first = ConvNorm(before, after, stride=stride, rngs=rngs)
        self.second = ConvNorm(after, after, scale=0.0, rngs=rngs)
        same = stride == 1 and before == after
        self.shortcut = None if same else ConvNorm(before, after, side=1, stride=stride, rngs=rngs)

    def __call__(self, x) -> jax.Array:
        """Map x [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), after]."""
        short = x if self.shortcut is None else self.shortcut(x)
        return jax.nn.relu(short + self.second(jax.nn.relu(self.first(x))))


class ConvNorm(nnx.Module):
    """A convolution and batch normalization, whose offset makes a bias needless.

    kernel [side, side, C, F], He-normal at first, side odd; the image is padded by side // 2, so
    that a filter's middle is on a cell at every stride. scale: that of the normalization at first.
    """

    def __init__(self, channels, filters, *, side=3, stride=1, scale=1.0, rngs: nnx.Rngs):
        start = nnx.initializers.he_normal()
        self.kernel = nnx.Param(start(rngs.params(), (side, side, channels, filters)))
        # Running averages over about ten batches: a short training must not be judged by its start.
        self.norm = nnx.BatchNorm(
            filters,
            momentum=0.9,
            scale_init=nnx.initializers.constant(scale),
            rngs=rngs,
        )
        self.stride = stride

    def __call__(self, x) -> jax.Array:
        """Map x [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), F]."""
        kernel = self.kernel.astype(x.dtype)
        return self.norm(conv2d(x, kernel, stride=self.stride, padding=kernel.shape[0] // 2))


def check_divides(images, widths: Sequence[int]) -> None:
    """Raise ValueError unless images [B, H, W, C] halve evenly from each stage to the next."""
    shrink = 2 ** (len(widths) - 1)
    shape = jnp.shape(images)
    if len(shape) == 4 and any(side % shrink or not side for side in shape[1:3]):
        raise ValueError(
            f"images must have height and width that are multiples of {shrink}, not {shape[1:3]}"
        )
