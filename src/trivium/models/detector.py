"""A one-stage, anchor-free detector: every object is the peak of a heat map."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from trivium.kernels import max_pool
from trivium.models.boxes import generalized_iou, non_maximum_suppression
from trivium.models.language import check_sizes
from trivium.models.resnet import ConvNorm, ResNet, check_divides
from trivium.models.unet import climb

# An object's peak falls off over this share of its height and width (Liu et al. 2020: 0.54 / 6).
_SPREAD = 0.09


class DetectorMaps(NamedTuple):
    """What the detector says at every cell of its maps.

    heat [B, H, W, K]: logits, one for each class, of "the middle of one is here".
    size [B, H, W, 2]: height and width of the box, in pixels, above 0.
    offset [B, H, W, 2]: from the cell's upper left corner to the box's middle, in cells; within
    0 to 1 where the middle is in the cell.
    """

    heat: jax.Array
    size: jax.Array
    offset: jax.Array


class Targets(NamedTuple):
    """What the maps should be: heat from 0 to 1 (1 at the middles), size and offset.

    weight [B, H, W]: how much size and offset of a cell count, 1 at an object's middle.
    """

    heat: jax.Array
    size: jax.Array
    offset: jax.Array
    weight: jax.Array


class Detections(NamedTuple):
    """The N best boxes of each image, the best first: [B, N, 4], [B, N] and int32 [B, N].

    A score of 0 means that there is no box.
    """

    boxes: jax.Array
    scores: jax.Array
    classes: jax.Array


class Detector(nnx.Module):
    """Find objects: a heat map whose peaks are their middles, and at each cell a box.

    backbone: a `ResNet`; its `dense` is not used. classes: number of them. stride: pixels from one
    cell of the maps to the next, a power of two. hidden: channels before the answer.

    Raises ValueError where sizes are below 1 or the backbone has no maps of that stride.
    Source: Zhou, Wang and Krähenbühl 2019, "Objects as points".
    """

    def __init__(
        self,
        backbone: ResNet,
        classes: int,
        *,
        stride: int = 4,
        hidden: int = 64,
        rngs: nnx.Rngs,
    ):
        check_sizes(classes=classes, stride=stride, hidden=hidden)
        strides = [2**stage for stage in range(len(backbone.widths))]
        if stride not in strides:
            raise ValueError(f"stride must be one of the backbone's, {strides}, not {stride}")
        self.backbone = backbone
        self.classes = classes
        self.stride = stride
        self.level = strides.index(stride)
        self.ups = nnx.List(climb(backbone.widths, len(strides) - 1 - self.level, rngs=rngs))
        self.look = ConvNorm(backbone.widths[self.level], hidden, rngs=rngs)
        self.heat = nnx.Linear(
            hidden,
            classes,
            # At first every cell says 0.1: else the many empty cells would drown all others.
            bias_init=nnx.initializers.constant(-math.log(9.0)),
            rngs=rngs,
        )
        self.box = nnx.Linear(hidden, 4, rngs=rngs)

    def __call__(self, images) -> DetectorMaps:
        """Map images [B, H, W, C] to maps [B, H / stride, W / stride, ...].

        Raises ValueError for height or width that the backbone's halvings do not divide, and as
        `ResNet.features` does.
        """
        check_divides(images, self.backbone.widths)
        *skips, x = self.backbone.features(images)
        for up, skip in zip(self.ups, reversed(skips[self.level :]), strict=True):
            x = up(x, skip)
        x = jax.nn.relu(self.look(x))
        size, offset = jnp.split(self.box(x), 2, axis=-1)
        return DetectorMaps(self.heat(x), 8 * self.stride * jnp.exp(size), 0.5 + offset)

    def detect(self, images, *, count: int = 20, threshold: float = 0.5) -> Detections:
        """The `count` best boxes of each image, after non-maximum suppression within each class."""
        maps = self(images)
        found = decode(
            jax.nn.sigmoid(maps.heat), maps.size, maps.offset, stride=self.stride, count=count
        )

        def suppress(boxes, scores, classes):
            return non_maximum_suppression(boxes, scores, threshold=threshold, classes=classes)

        kept = jax.vmap(suppress)(*found)
        scores = jnp.where(kept, found.scores, 0)
        order = jnp.argsort(-scores, axis=-1, stable=True)
        return Detections(
            jnp.take_along_axis(found.boxes, order[..., None], axis=1),
            jnp.take_along_axis(scores, order, axis=1),
            jnp.take_along_axis(found.classes, order, axis=1),
        )


def detection_targets(boxes, classes, shape, *, stride: int, count: int) -> Targets:
    """Draw the maps that a detector should give.

    boxes [B, M, 4] in pixels and classes [B, M], -1 where there is none; shape: (H, W) of the maps;
    count: K, the number of classes. Around each middle the heat falls off as a Gaussian whose width
    is a share of the box's; where those of two objects meet, the larger counts, and size and offset
    are those of the object it belongs to. Of two objects with their middles in one cell only the
    first gives its size.

    Raises ValueError where boxes and classes do not fit.
    Source: Zhou et al. 2019; Gaussians as long as the box, which weigh its size: Liu et al. 2020.
    """
    boxes, classes = jnp.asarray(boxes), jnp.asarray(classes)
    if boxes.ndim != 3 or boxes.shape[-1] != 4 or classes.shape != boxes.shape[:2]:
        raise ValueError(
            f"boxes and classes must have shapes [B, M, 4] and [B, M], not {boxes.shape} and "
            f"{classes.shape}"
        )
    size = boxes[..., 2:] - boxes[..., :2]
    middle = (boxes[..., :2] + boxes[..., 2:]) / (2 * stride)
    cell = jnp.minimum(jnp.floor(middle), jnp.asarray(shape, middle.dtype) - 1)
    wide = jnp.maximum(_SPREAD * size / stride, 1e-3)
    lines = [jnp.arange(length, dtype=boxes.dtype) for length in shape]
    down, across = (
        jnp.exp(-0.5 * jnp.square((line - cell[..., axis, None]) / wide[..., axis, None]))
        for axis, line in enumerate(lines)
    )
    there = (classes >= 0).astype(boxes.dtype)
    each = there[..., None, None] * down[..., :, None] * across[..., None, :]
    kinds = jax.nn.one_hot(classes, count, dtype=boxes.dtype)
    owner = each.argmax(axis=1)
    places = jnp.stack(jnp.meshgrid(*lines, indexing="ij"), axis=-1)
    take = jax.vmap(lambda values, owner: values[owner])
    return Targets(
        heat=(each[..., None] * kinds[:, :, None, None, :]).max(axis=1),
        size=take(size, owner),
        offset=take(middle, owner) - places,
        weight=each.max(axis=1),
    )


def map_boxes(size, offset, *, stride: int) -> jax.Array:
    """The box of every cell: size and offset [B, H, W, 2] -> [B, H, W, 4] in pixels."""
    height, width = size.shape[1:3]
    lines = (jnp.arange(length, dtype=size.dtype) for length in (height, width))
    middle = stride * (jnp.stack(jnp.meshgrid(*lines, indexing="ij"), axis=-1) + offset)
    return jnp.concatenate([middle - size / 2, middle + size / 2], axis=-1)


def decode(heat, size, offset, *, stride: int, count: int) -> Detections:
    """The `count` highest peaks of the heat maps, each with the box of its cell.

    heat [B, H, W, K] from 0 to 1, size and offset as in `DetectorMaps`. A peak is a cell that no
    neighbor of its class exceeds. Boxes are cut at the image's border.
    Raises ValueError where count is below 1 or above the number of cells and classes.
    Source: Zhou et al. 2019.
    """
    batch, height, width, kinds = heat.shape
    if not 1 <= count <= height * width * kinds:
        raise ValueError(f"count must be from 1 to {height * width * kinds}, not {count}")
    highest = max_pool(heat, 3, stride=1, padding=1)
    peaks = jnp.where(heat == highest, heat, 0).reshape(batch, -1)
    scores, places = jax.lax.top_k(peaks, count)
    boxes = map_boxes(size, offset, stride=stride).reshape(batch, -1, 4)
    found = jnp.take_along_axis(boxes, (places // kinds)[..., None], axis=1)
    limits = jnp.asarray((height * stride, width * stride) * 2, found.dtype)
    return Detections(jnp.clip(found, 0, limits), scores, (places % kinds).astype(jnp.int32))


def focal_loss(logits, targets, *, alpha: float = 2.0, beta: float = 4.0) -> jax.Array:
    """Cross-entropy of heat maps in which cells that are right already hardly count.

    logits and targets of one shape, targets from 0 to 1 and exactly 1 at the middles:
    -(1 - p)^alpha log(p) at a middle, -(1 - t)^beta p^alpha log(1 - p) elsewhere. Returns the loss
    of each cell; commonly their sum is divided by the number of objects.
    Raises ValueError for shapes that differ.
    Source: Lin et al. 2017; the factor with beta, which spares the neighbors of a middle: Law and
    Deng 2018.
    """
    logits, targets = jnp.asarray(logits), jnp.asarray(targets)
    if logits.shape != targets.shape:
        raise ValueError(
            f"logits and targets must have one shape, not {logits.shape} and {targets.shape}"
        )
    right, wrong = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    middle = jnp.exp(alpha * wrong) * right
    elsewhere = (1 - targets) ** beta * jnp.exp(alpha * right) * wrong
    return -jnp.where(targets == 1, middle, elsewhere)


def detection_loss(maps: DetectorMaps, labels, *, stride: int = 4, box: float = 2.0) -> jax.Array:
    """The loss of each image: focal loss of the heat, and `box` times 1 - GIoU of the boxes.

    labels [B, M, 5]: (y0, x0, y1, x1, class), class -1 where there is no object. The heat's loss
    is summed and divided by the image's objects; the boxes' is a mean over cells, weighted by how
    near the cell is to the middle of its object. Returns [B], as `trivium.train.fit` asks for.
    Raises ValueError for other labels.
    """
    labels = jnp.asarray(labels)
    if labels.ndim != 3 or labels.shape[-1] != 5:
        raise ValueError(f"labels must have shape [B, M, 5], not {labels.shape}")
    boxes, classes = labels[..., :4], labels[..., 4].astype(jnp.int32)
    targets = detection_targets(
        boxes, classes, maps.heat.shape[1:3], stride=stride, count=maps.heat.shape[-1]
    )
    objects = jnp.maximum((classes >= 0).sum(axis=1), 1).astype(boxes.dtype)
    heat = focal_loss(maps.heat, targets.heat).sum(axis=(1, 2, 3)) / objects
    overlap = generalized_iou(
        map_boxes(maps.size, maps.offset, stride=stride),
        map_boxes(targets.size, targets.offset, stride=stride),
    )
    weight = targets.weight
    wrong = (weight * (1 - overlap)).sum(axis=(1, 2)) / jnp.maximum(weight.sum(axis=(1, 2)), 1)
    return heat + box * wrong
