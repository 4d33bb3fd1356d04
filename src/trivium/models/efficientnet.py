"""EfficientNet-Lite: inverted bottlenecks, wide where the filters look and narrow in between."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from trivium.kernels import conv2d


@dataclass(frozen=True)
class EfficientNetConfig:
    """The sizes of an EfficientNet-Lite; the defaults are Lite0: 4.63 million parameters.

    stages: for each run of like blocks (expansion, width out, blocks, stride of the first,
        filter side). stem, head: filters of the first and of the last convolution.
    classes: number of classes. size: side of the images it was trained on, in pixels; any size
        can be classified.

    Raises ValueError where a size is not a positive integer.
    Source: Tan and Le 2019, table 1, for stages and head.
    """

    stages: tuple[tuple[int, int, int, int, int], ...] = (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )
    stem: int = 32
    head: int = 1280
    classes: int = 1000
    size: int = 224

    def __post_init__(self):
        """Refuse sizes that no network can have."""
        named = [(name, getattr(self, name)) for name in ("stem", "head", "classes", "size")]
        for stage in self.stages:
            if len(stage) != 5:
                raise ValueError(f"stages must each be five numbers, not {stage}")
            named += [("stages", value) for value in stage]
        for name, value in named:
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must hold positive integers, not {value!r}")


class EfficientNet(nnx.Module):
    """Classify color images with a stem, a run of inverted bottlenecks, a head and a dense layer.

    The Lite variant: ReLU6 instead of Swish and no squeeze-and-excitation. There is no batch
    normalization either: of a trained network it is a scale and a shift for each channel, which
    belong into the filters before it. What is here is for use and for fine-tuning; to train from
    nothing, one would want it back.

    stem, blocks, head, dense: in the order of use. Filters start He-normal, biases at zero.

    Source: Tan and Le 2019; the bottleneck is that of Sandler et al. 2018.
    """

    def __init__(self, config: EfficientNetConfig | None = None, *, rngs: nnx.Rngs):
        self.config = config = config or EfficientNetConfig()
        self.stem = _Filters(3, config.stem, side=3, stride=2, rngs=rngs)
        blocks, width = [], config.stem
        for expansion, wide, repeats, stride, side in config.stages:
            for repeat in range(repeats):
                step = 1 if repeat else stride
                blocks.append(Bottleneck(width, wide, expansion, side=side, stride=step, rngs=rngs))
                width = wide
        self.blocks = nnx.List(blocks)
        self.head = _Filters(width, config.head, side=1, rngs=rngs)
        self.dense = nnx.Linear(config.head, config.classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map images [B, H, W, 3] to logits [B, classes]; raises ValueError as `features` does."""
        return self.classify(self.features(images))

    def features(self, images: jax.Array) -> jax.Array:
        """Map images [B, H, W, 3] to the head's maps [B, ceil(H / 32), ceil(W / 32), head].

        Raises ValueError for other shapes, for images without a pixel, and for integers.
        """
        images = jnp.asarray(images)
        if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape[1:3]:
            raise ValueError(f"images must have shape [B, H, W, 3], not {images.shape}")
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images must be floating point, not {images.dtype}: prepare them")
        x = jax.nn.relu6(self.stem(images))
        for block in self.blocks:
            x = block(x)
        return jax.nn.relu6(self.head(x))

    def classify(self, features: jax.Array) -> jax.Array:
        """Map the head's maps [B, H, W, head] to logits [B, classes]: their mean, weighed."""
        return self.dense(features.mean((1, 2)).astype(self.dense.kernel.dtype))


class Bottleneck(nnx.Module):
    """Widen each pixel, filter each channel by itself, narrow; added to the input where it fits.

    Source: Sandler et al. 2018.
    """

    def __init__(self, width, out, expansion, *, side, stride, rngs: nnx.Rngs):
        wide = width * expansion
        self.expand = None if expansion == 1 else _Filters(width, wide, side=1, rngs=rngs)
        self.depthwise = _Filters(wide, wide, side=side, stride=stride, groups=wide, rngs=rngs)
        self.project = _Filters(wide, out, side=1, rngs=rngs)
        self.adds = stride == 1 and width == out

    def __call__(self, x):
        """Map x [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), out]."""
        wide = x if self.expand is None else jax.nn.relu6(self.expand(x))
        narrow = self.project(jax.nn.relu6(self.depthwise(wide)))
        return x + narrow if self.adds else narrow


class _Filters(nnx.Module):
    """A convolution with a bias, padded as TensorFlow does ("SAME"): kernel [S, S, C/groups, F]."""

    def __init__(self, channels, filters, *, side, stride=1, groups=1, rngs: nnx.Rngs):
        start = nnx.initializers.he_normal()
        self.kernel = nnx.Param(start(rngs.params(), (side, side, channels // groups, filters)))
        self.bias = nnx.Param(jnp.zeros(filters))
        self.stride = stride
        self.groups = groups

    def __call__(self, x):
        kernel, bias = (each.astype(x.dtype) for each in (self.kernel, self.bias))
        return conv2d(x, kernel, bias, stride=self.stride, groups=self.groups)
