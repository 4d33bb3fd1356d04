"""Fashion-MNIST: 70,000 pictures of garments in ten classes."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trivium.data.examples import Examples
from trivium.data.fetch import read
from trivium.data.files import FASHION_MNIST

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True, eq=False)
class FashionMNIST:
    """Fashion-MNIST as its authors split it.

    train: inputs float32 [60000, 28, 28, 1] in [0, 1], 0 the background; labels int32 [60000].
    test: inputs float32 [10000, 28, 28, 1]; labels int32 [10000].
    classes: the ten names; `classes[label]` is the garment.
    """

    train: Examples
    test: Examples
    classes: tuple[str, ...]


def fashion_mnist() -> FashionMNIST:
    """Fashion-MNIST: 60,000 + 10,000 grayscale pictures of 28 x 28 pixels, ten classes of garment.

    The arrays are fresh at each call and may be written to.

    Raises CorruptFileError (a ValueError) and DownloadError (an OSError) as `fetch.read` does.
    Source: Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747; MIT license.
    """
    train_images, train_labels, test_images, test_labels = (
        parse_idx(read(file), file.name) for file in FASHION_MNIST.files
    )
    return FashionMNIST(
        train=_examples(train_images, train_labels),
        test=_examples(test_images, test_labels),
        classes=CLASSES,
    )


def parse_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """An array of bytes from the IDX format: 0, 0, type 8, rank, big-endian sizes, values.

    name: the file, for the message. The array is a read-only view of the content.
    Raises ValueError where header and length do not fit.
    Source: LeCun, Cortes and Burges, The MNIST database of handwritten digits.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(
            f"{name}: expected an IDX header 00 00 08 for unsigned bytes, "
            f"found {content[:3].hex(' ') or 'an empty file'}."
        )
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[place : place + 4], "big") for place in range(4, start, 4))
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"{name}: expected {start + math.prod(shape)} bytes for the shape {shape} "
            f"in its header, found {len(content)}."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _examples(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Examples:
    scaled = np.divide(images[..., np.newaxis], np.float32(255), dtype=np.float32)
    return Examples(scaled, labels.astype(np.int32))
