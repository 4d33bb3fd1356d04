"""EfficientNet-Lite0 with its ImageNet weights: from a photograph to the name of what is on it."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray
from safetensors.numpy import load

from trivium.data.fetch import read
from trivium.data.files import EFFICIENTNET_LITE0
from trivium.models import EfficientNet, EfficientNetConfig

# What the network was trained on: (pixel - 127) / 128. Source: the TensorFlow TPU models.
_CENTER, _SPREAD = 127.0, 128.0


@dataclass(frozen=True, eq=False)
class PretrainedEfficientNet:
    """A pretrained classifier of photographs with what is needed to use it.

    model: maps prepared images to logits. config: its sizes. classes: the names of its classes,
    ImageNet's, in the order of the logits.
    """

    model: EfficientNet
    config: EfficientNetConfig
    classes: tuple[str, ...]

    def prepare(self, images) -> NDArray[np.float32]:
        """Cut the middle square out of photographs, resize it, and normalize it.

        images: one photograph, uint8 [H, W, 3] of any size, or a list of them.
        Returns float32 [S, S, 3] for one, [N, S, S, 3] for a list; S is `config.size`. Resizing
        is bicubic, with antialiasing where it shrinks. The whole middle square is used; where the
        network was evaluated for its publication, a border of an eighth was cut off.
        Raises ValueError for other types, shapes or numbers of channels, and for an empty list.
        """
        if isinstance(images, Sequence):
            if not images:
                raise ValueError("images must hold at least one photograph, the list is empty")
            return np.stack([self._prepared(image) for image in images])
        return self._prepared(images)

    def pixels(self, prepared) -> NDArray[np.float32]:
        """Undo the normalization, to look at prepared images [..., 3]: values in [0, 1]."""
        return np.clip((np.asarray(prepared) * _SPREAD + _CENTER) / 255, 0, 1).astype(np.float32)

    def _prepared(self, image) -> NDArray[np.float32]:
        image = np.asarray(image)
        if image.dtype != np.uint8:
            raise ValueError(f"images must be uint8, 0 to 255, not {image.dtype}")
        if image.ndim != 3 or 0 in image.shape or image.shape[2] != 3:
            raise ValueError(
                f"images must each have shape [H, W, 3], red, green and blue, not {image.shape}"
            )
        side = min(image.shape[:2])
        top, left = ((length - side) // 2 for length in image.shape[:2])
        square = jnp.asarray(image[top : top + side, left : left + side], jnp.float32)
        size = self.config.size
        resized = np.asarray(jax.image.resize(square, (size, size, 3), "cubic"))
        return (np.clip(resized, 0, 255) - np.float32(_CENTER)) / np.float32(_SPREAD)


def lite0() -> PretrainedEfficientNet:
    """EfficientNet-Lite0, float32 from half precision. Source: Tan and Le 2019."""
    weights, names = EFFICIENTNET_LITE0.files
    stored = load(read(weights))
    config = EfficientNetConfig()
    model = nnx.eval_shape(lambda: EfficientNet(config, rngs=nnx.Rngs(0)))
    loaded = [
        (path, variable.replace(jnp.asarray(stored[".".join(map(str, path))], jnp.float32)))
        for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))
    ]
    nnx.update(model, nnx.from_flat_state(loaded))
    return PretrainedEfficientNet(model, config, tuple(read(names).decode().splitlines()))
