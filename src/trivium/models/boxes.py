"""Boxes: how much two overlap, and which of many to keep.

A box is (y0, x0, y1, x1) with y0 <= y1 and x0 <= x1, in any unit; its height is y1 - y0.
"""

import jax
import jax.numpy as jnp


def box_iou(a, b) -> jax.Array:
    """Intersection over union of every box of a [..., N, 4] with every box of b [..., M, 4].

    Returns [..., N, M], 0 to 1; two boxes without area have 0.
    Raises ValueError where the last axis is not 4.
    Source: Jaccard 1912, applied to boxes by Everingham et al. 2010.
    """
    a, b = _boxes("a", a), _boxes("b", b)
    both, either = _areas(a[..., :, None, :], b[..., None, :, :])
    return _ratio(both, either)


def generalized_iou(a, b) -> jax.Array:
    """Generalized intersection over union of each box of a [..., 4] with the same box of b.

    IoU, less the share of the smallest box around both that neither covers: -1 to 1, and with a
    slope also where the boxes do not touch; 1 - GIoU is a loss. Returns [...].
    Raises ValueError where the last axis is not 4.
    Source: Rezatofighi et al. 2019, algorithm 1.
    """
    a, b = _boxes("a", a), _boxes("b", b)
    both, either = _areas(a, b)
    low, high = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
    around = _area(low, high)
    return _ratio(both, either) - _ratio(around - either, around)


def non_maximum_suppression(boxes, scores, *, threshold: float = 0.5, classes=None) -> jax.Array:
    """Which boxes to keep: from the best score down, each unless one that is kept overlaps it.

    boxes [N, 4], scores [N] -> bool [N]; an overlap is an IoU above threshold. classes: integers
    [N]; where given, only boxes of one class suppress each other. Of equal scores the first box
    comes first. Shapes do not depend on values: it can be compiled, and mapped over a batch.
    Raises ValueError where shapes do not fit or the threshold is not between 0 and 1.
    Source: Felzenszwalb et al. 2010, greedy non-maximum suppression.
    """
    boxes, scores = _boxes("boxes", boxes), jnp.asarray(scores)
    if boxes.ndim != 2 or scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"boxes and scores must have shapes [N, 4] and [N], not {boxes.shape} and "
            f"{scores.shape}"
        )
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be between 0 and 1, not {threshold}")
    best_first = jnp.argsort(-scores, stable=True)
    ordered = boxes[best_first]
    overlap = box_iou(ordered, ordered) > threshold
    if classes is not None:
        classes = jnp.asarray(classes)
        if classes.shape != scores.shape:
            raise ValueError(f"classes must have shape {scores.shape}, not {classes.shape}")
        kinds = classes[best_first]
        overlap &= kinds[:, None] == kinds
    places = jnp.arange(len(scores))

    def consider(place, keep):
        suppressed = overlap[place] & (places > place)
        return keep & ~(keep[place] & suppressed)

    keep = jax.lax.fori_loop(0, len(scores), consider, jnp.ones(len(scores), bool))
    return jnp.zeros(len(scores), bool).at[best_first].set(keep)


def _boxes(name, value) -> jax.Array:
    value = jnp.asarray(value)
    if value.shape[-1:] != (4,):
        raise ValueError(f"{name} must have shape [..., 4], not {value.shape}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"{name} must be floating point, not {value.dtype}")
    return value


def _areas(a, b):
    """Areas of intersection and of union."""
    low, high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    both = _area(low, jnp.maximum(low, high))
    return both, _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - both


def _area(low, high):
    return (high[..., 0] - low[..., 0]) * (high[..., 1] - low[..., 1])


def _ratio(part, whole):
    """Part / whole, and 0 (with slope 0) where the whole is 0."""
    some = whole > 0
    return jnp.where(some, part / jnp.where(some, whole, 1), 0)
