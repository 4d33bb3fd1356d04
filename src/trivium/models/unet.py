"""U-Net: down to see what is there, up again to say where, with bridges at every resolution."""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from trivium.kernels import avg_pool
from trivium.models.language import check_sizes
from trivium.models.resnet import ConvNorm, ResNet, check_divides


class UNet(nnx.Module):
    """Classify every pixel: a backbone's maps, joined from the coarsest to the finest.

    backbone: its `features` are the way down; its `dense` is not used. classes: number of them,
    background included. scales: at how many sizes the backbone looks at an image: as it is, halved,
    halved again. Of every smaller one its coarsest maps come below the others, so that a large
    thing is seen by the same filters as a small one. The statistics of its normalization are then
    those of no single size: to train, call `backbone.eval()` after `train()`, so that they stay.

    Raises ValueError where classes or scales are below 1.
    Source: Ronneberger, Fischer and Brox 2015; here maps keep their size (the original's shrink by
    their borders), blocks on the way down are residual, and there is one convolution a level on
    the way up. Scales: Farabet et al. 2013.
    """

    def __init__(self, backbone: ResNet, classes: int, *, scales: int = 1, rngs: nnx.Rngs):
        check_sizes(classes=classes, scales=scales)
        self.backbone = backbone
        self.scales = scales
        self.widths = (*backbone.widths, *backbone.widths[-1:] * (scales - 1))
        self.ups = nnx.List(climb(self.widths, len(self.widths) - 1, rngs=rngs))
        self.answer = nnx.Linear(backbone.widths[0], classes, rngs=rngs)

    def __call__(self, images) -> jax.Array:
        """Map images [B, H, W, C] to logits [B, H, W, classes].

        Raises ValueError as `features` does.
        """
        *skips, x = self.features(images)
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            x = up(x, skip)
        return self.answer(x)

    def features(self, images) -> list[jax.Array]:
        """Map images [B, H, W, C] to the maps of the way down, the finest first.

        Those of level l are [B, H / 2^l, W / 2^l, widths[l]]. Raises ValueError for height or width
        that so many halvings do not divide, and as `ResNet.features` does.
        """
        check_divides(images, self.widths)
        maps = self.backbone.features(images)
        for _ in range(1, self.scales):
            images = avg_pool(images, 2)
            maps.append(self.backbone.features(images)[-1])
        return maps


class Up(nnx.Module):
    """Twice the resolution: a 2x2 up-convolution, joined to finer maps, then a 3x3 convolution."""

    def __init__(self, before: int, after: int, *, rngs: nnx.Rngs):
        self.spread = nnx.Linear(before, 4 * after, use_bias=False, rngs=rngs)
        self.join = ConvNorm(2 * after, after, rngs=rngs)

    def __call__(self, x, skip) -> jax.Array:
        """Map x [B, H, W, before] and skip [B, 2 H, 2 W, after] to skip's shape."""
        batch, height, width, _ = x.shape
        # A transposed convolution whose windows lie side by side: a cell becomes four.
        cells = self.spread(x).reshape(batch, height, width, 2, 2, -1)
        cells = cells.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, -1)
        return jax.nn.relu(self.join(jnp.concatenate([cells, skip], axis=-1)))


def climb(widths: Sequence[int], steps: int, *, rngs: nnx.Rngs) -> list[Up]:
    """The first steps up from the coarsest of maps that are so wide, the finest first."""
    coarse_to_fine = list(pairwise(widths[::-1]))
    return [Up(before, after, rngs=rngs) for before, after in coarse_to_fine[:steps]]
