"""The convolution family: a filter bank, a pooling, a linear answer."""

import jax
import jax.numpy as jnp
from flax import nnx

from trivium.kernels import max_pool
from trivium.models.layers import Conv


class ConvClassifier(nnx.Module):
    """Classify images with one layer of 3x3 filters, ReLU, 2x2 max-pooling and a dense layer.

    The defaults are the article's network for 28x28 gray images: 54,410 parameters.

    classes: number of classes. size: (height, width) of the images, at least 4 pixels each way.
    channels: 1 for gray, 3 for color. filters: number of filters.

    Raises ValueError where a size is not positive or the images leave nothing to pool.
    Source: the smallest descendant of LeNet (LeCun et al. 1998).
    """

    def __init__(self, classes=10, *, size=(28, 28), channels=1, filters=32, rngs: nnx.Rngs):
        for name, value in (("classes", classes), ("channels", channels), ("filters", filters)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        height, width = size
        if min(height, width) < 4:
            raise ValueError(f"size must be at least (4, 4) to filter and pool, not {size}")
        self.size = (height, width)
        self.channels = channels
        self.conv = Conv(channels, filters, padding="VALID", rngs=rngs)
        self.dense = nnx.Linear(
            # Each way, the filters lose two pixels at the edges and pooling halves what is left.
            (height - 2) // 2 * ((width - 2) // 2) * filters,
            classes,
            kernel_init=nnx.initializers.glorot_uniform(),
            rngs=rngs,
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map images [B, H, W, C] to logits [B, classes].

        Images in float16 or bfloat16 are filtered in that type; the logits always have the type
        of the dense layer's parameters. Raises ValueError for other shapes and for integers.
        """
        maps = self.conv(self._checked(images), bias=False)
        # Adding a bias and ReLU keep numbers in order, so the largest may be taken first: the same
        # logits in float32, to the bit, with a quarter of the work after the filters.
        pooled = jax.nn.relu(max_pool(maps, 2) + self.conv.bias.astype(maps.dtype))
        flat = pooled.reshape(len(pooled), -1)
        return self.dense(flat.astype(self.dense.kernel.dtype))

    def features(self, images: jax.Array) -> dict[str, jax.Array]:
        """The maps on the way, for figures: "conv" [B, H-2, W-2, F] and "pool" at half the size."""
        images = self._checked(images)
        maps = jax.nn.relu(self.conv(images))
        return {"conv": maps, "pool": max_pool(maps, 2)}

    def _checked(self, images) -> jax.Array:
        images = jnp.asarray(images)
        expected = (*self.size, self.channels)
        if images.shape[1:] != expected or images.ndim != 4:
            raise ValueError(
                f"images must have shape [B, {', '.join(map(str, expected))}], not {images.shape}"
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images must be floating point, not {images.dtype}: scale pixels to [0, 1] first"
            )
        return images
