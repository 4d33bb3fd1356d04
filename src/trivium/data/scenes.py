"""Scenes: several garments of Fashion-MNIST on one canvas, with their boxes and masks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trivium.data.examples import Examples
from trivium.data.fashion_mnist import fashion_mnist

SIDE = 96
ITEMS = 4
HIDDEN = 0.25
_ITEM = 28
# Fainter pixels are noise around the garments: they are no part of an item and are not drawn.
_FAINTEST = np.float32(8 / 255)
# Places that are tried for all items of a scene together.
_TRIES = 12
# Scenes composed at a time: their canvases stay in the caches.
_PIECE = 128


@dataclass(frozen=True, eq=False)
class SceneSet:
    """N composed scenes with what is to be found on them.

    images: float32 [N, 96, 96, 1] in [0, 1], 0 the background.
    masks: uint8 [N, 96, 96], for each pixel 0 for background or 1 + the class of the item seen.
    boxes: float32 [N, 4, 4], for each item (y0, x0, y1, x1) in pixels around what is seen of it.
        y0 and x0 are the first row and column, y1 and x1 come after the last (exclusive), so that
        y1 - y0 is the height. Items stand from back to front; places without one hold zeros.
    classes: int32 [N, 4], counted from 0, and -1 where there is no item.
    counts: int32 [N], how many items there are, 1 to 4.
    """

    images: NDArray[np.float32]
    masks: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int32]
    counts: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.images)

    def labels(self) -> NDArray[np.float32]:
        """Boxes and classes in one array [N, 4, 5], (y0, x0, y1, x1, class): labels for `fit`."""
        return np.concatenate([self.boxes, self.classes[..., np.newaxis].astype(np.float32)], -1)


@dataclass(frozen=True, eq=False)
class Scenes:
    """Scenes for training and for test; `classes[label]` names the garment."""

    train: SceneSet
    test: SceneSet
    classes: tuple[str, ...]


def scenes(*, count_train: int = 10_000, count_test: int = 1_000, seed: int = 0) -> Scenes:
    """Scenes of 1 to 4 garments on a canvas of 96 x 96 pixels, with boxes and masks.

    Training scenes are composed, as `compose` says, of Fashion-MNIST's training pictures alone,
    test scenes of its test pictures alone. The same arguments give the same arrays on every machine
    and with every version of NumPy; with a larger count the same scenes come first.

    Raises ValueError for counts below 0 and a negative seed; CorruptFileError and DownloadError as
    `fetch.read` does.
    Source: Xiao, Rasul and Vollgraf 2017, for the pictures.
    """
    _check(count_train=count_train, count_test=count_test, seed=seed)
    pictures = fashion_mnist()
    return Scenes(
        train=compose(pictures.train, count_train, seed=seed),
        test=compose(pictures.test, count_test, seed=seed),
        classes=pictures.classes,
    )


def compose(pictures: Examples, count: int, *, seed: int) -> SceneSet:
    """Compose scenes of pictures [N, 28, 28, 1] in [0, 1] on black, with labels [N].

    Number of items (1 to 4), picture, size (as it is, or each pixel twice as high and wide) and
    place of each item are drawn uniformly; an item lies wholly on the canvas. Later items lie in
    front of earlier ones, and masks and boxes show what is seen. An item of which more than a
    quarter of the pixels would be hidden is not placed: another picture, size and place are drawn,
    12 times in all for a scene, so that crowded scenes may have fewer items than were drawn.

    A picture's pixels belong to the item where they are at least 8/255; it must have some.

    Raises ValueError where pictures or labels have another shape, a picture is blank, or count or
    seed are negative.
    """
    images, labels = np.asarray(pictures[0]), np.asarray(pictures[1])
    if images.ndim != 4 or images.shape[1:] != (_ITEM, _ITEM, 1) or not len(images):
        raise ValueError(f"pictures must have shape [N, 28, 28, 1], not {images.shape}")
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be integers [{len(images)}], not {labels.dtype} {labels.shape}"
        )
    _check(count=count, seed=seed)
    images = images[..., 0].astype(np.float32)
    blank = (images < _FAINTEST).all(axis=(1, 2))
    if blank.any():
        raise ValueError(f"pictures must each have pixels above 8/255, number {blank.argmax()} not")
    # Raw bits: what NumPy makes of them, integers in a range, may change with its versions.
    bits = np.random.PCG64(seed).random_raw(count * (1 + 4 * _TRIES))
    bits = (bits >> np.uint64(32)).reshape(count, 1 + 4 * _TRIES)
    parts = [
        _compose(images, labels, bits[start : start + _PIECE])
        for start in range(0, max(count, 1), _PIECE)
    ]
    return SceneSet(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 0:
            raise ValueError(f"{name} must be at least 0, not {value}")


def _below(bits, limit):
    """32 random bits to an integer in 0..limit - 1."""
    return ((bits * np.asarray(limit, np.uint64)) >> np.uint64(32)).astype(np.int64)


def _compose(images, labels, bits):
    """Scenes from front to back, so that what is seen of an item is final when it is placed."""
    count = len(bits)
    wanted = 1 + _below(bits[:, 0], ITEMS)
    tries = bits[:, 1:].reshape(count, _TRIES, 4)
    canvas = np.zeros((count, SIDE, SIDE), np.float32)
    masks = np.zeros((count, SIDE, SIDE), np.uint8)
    boxes = np.zeros((count, ITEMS, 4), np.float32)
    classes = np.full((count, ITEMS), -1, np.int32)
    counts = np.zeros(count, np.int32)
    for trial in range(_TRIES):
        picture, scale, top, left = (tries[:, trial, number] for number in range(4))
        picture, scale = _below(picture, len(images)), 1 + _below(scale, 2)
        top, left = (_below(place, SIDE - _ITEM * scale + 1) for place in (top, left))
        for size in (1, 2):
            rows = np.flatnonzero((counts < wanted) & (scale == size))
            steps = np.arange(_ITEM * size)
            y, x = top[rows, np.newaxis] + steps, left[rows, np.newaxis] + steps
            window = (rows[:, np.newaxis, np.newaxis], y[:, :, np.newaxis], x[:, np.newaxis, :])
            item = images[picture[rows]].repeat(size, axis=1).repeat(size, axis=2)
            there = item >= _FAINTEST
            seen = there & (masks[window] == 0)
            fits = seen.sum(axis=(1, 2)) >= (1 - HIDDEN) * there.sum(axis=(1, 2))
            rows, seen, y, x = rows[fits], seen[fits], y[fits], x[fits]
            window = tuple(part[fits] for part in window)
            label = labels[picture[rows]]
            canvas[window] = np.where(seen, item[fits], canvas[window])
            masks[window] = np.where(
                seen, (1 + label)[:, np.newaxis, np.newaxis].astype(np.uint8), masks[window]
            )
            boxes[rows, counts[rows]] = np.stack(_around(seen, y, x), axis=-1)
            classes[rows, counts[rows]] = label
            counts[rows] += 1
    # From back to front, the items first and the empty places behind them.
    order = (counts[:, np.newaxis] - 1 - np.arange(ITEMS)) % ITEMS
    boxes = np.take_along_axis(boxes, order[..., np.newaxis], axis=1)
    return canvas[..., np.newaxis], masks, boxes, np.take_along_axis(classes, order, 1), counts


def _around(seen, y, x):
    """First and last rows and columns of what is seen [M, S, S], whose rows are y, columns x."""
    edges = []
    for first_or_last in (0, 1):
        for lines, axis in ((y, 2), (x, 1)):
            any_seen = seen.any(axis=axis)
            if first_or_last:
                last = lines.shape[1] - 1 - any_seen[:, ::-1].argmax(axis=1)
                edges.append(lines[:, 0] + last + 1)
            else:
                edges.append(lines[:, 0] + any_seen.argmax(axis=1))
    return edges
