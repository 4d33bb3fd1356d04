"""Boxes: IoU and GIoU against exact fractions, suppression against a plain loop."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trivium.models import box_iou, generalized_iou, non_maximum_suppression

suppress = jax.jit(non_maximum_suppression, static_argnames="threshold")


def random_boxes(count, seed=0, limit=12):
    """Boxes with whole corners, some of them without area."""
    corners = np.random.default_rng(seed).integers(0, limit, (count, 2, 2))
    return np.sort(corners, axis=1).reshape(count, 4).astype(np.float32)


def cells(box):
    """The cells that a box with whole corners covers."""
    y0, x0, y1, x1 = map(int, box)
    return {(y, x) for y in range(y0, y1) for x in range(x0, x1)}


def exact(a, b):
    """IoU and GIoU by counting cells."""
    both, either = len(cells(a) & cells(b)), len(cells(a) | cells(b))
    iou = Fraction(both, either) if either else Fraction(0)
    around = len(cells((*np.minimum(a, b)[:2], *np.maximum(a, b)[2:])))
    return iou, iou - Fraction(around - either, around) if around else iou


def test_iou_and_giou_are_those_of_counted_cells():
    a, b = random_boxes(40), random_boxes(40, seed=1)
    expected = np.array([[float(exact(one, other)[0]) for other in b] for one in a])
    np.testing.assert_allclose(box_iou(a, b), expected, atol=1e-7)
    expected = np.array([float(exact(one, other)[1]) for one, other in zip(a, b, strict=True)])
    np.testing.assert_allclose(generalized_iou(a, b), expected, atol=1e-6)
    assert expected.min() < -0.5


def test_giou_of_a_box_with_itself_and_of_two_far_apart():
    near, far = jnp.array([0.0, 0, 1, 1]), jnp.array([0.0, 999, 1, 1000])
    assert generalized_iou(near, near) == 1
    np.testing.assert_allclose(generalized_iou(near, far), -0.998, rtol=1e-6)


def test_the_slope_of_giou_pulls_boxes_together_that_do_not_touch():
    target, box = jnp.array([0.0, 0, 2, 2]), jnp.array([4.0, 4, 6, 6])
    slope = jax.grad(lambda box: generalized_iou(box, target))(box)
    assert slope[0] < 0
    assert slope[1] < 0
    empty = jax.grad(lambda box: generalized_iou(box, box))(jnp.zeros(4))
    assert np.isfinite(empty).all()


def greedy(boxes, scores, threshold, classes):
    """The plain loop: the best box that is left is kept, what it overlaps is dropped."""
    left, kept = sorted(range(len(boxes)), key=lambda i: -scores[i]), []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [
            i
            for i in left
            if classes[i] != classes[best] or exact(boxes[i], boxes[best])[0] <= threshold
        ]
    return sorted(kept)


@pytest.mark.parametrize("threshold", [0.25, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_suppression_keeps_what_the_plain_loop_keeps(threshold, seed):
    boxes = random_boxes(60, seed=seed, limit=5)
    random = np.random.default_rng(seed)
    # A few scores are equal: then the first box comes first.
    scores = np.round(random.random(60), 1).astype(np.float32)
    classes = random.integers(0, 3, 60)
    # All of one class, which is as if there were no classes.
    kept = suppress(boxes, scores, threshold=threshold, classes=np.zeros(60, int))
    one_class = greedy(boxes, scores, threshold, np.zeros(60))
    assert np.flatnonzero(kept).tolist() == one_class
    kept = suppress(boxes, scores, threshold=threshold, classes=classes)
    assert np.flatnonzero(kept).tolist() == greedy(boxes, scores, threshold, classes)
    assert len(one_class) < kept.sum() < 60


def test_suppression_maps_over_a_batch():
    boxes = jnp.stack([random_boxes(10, seed=seed) for seed in (4, 5)])
    scores = jnp.asarray(np.random.default_rng(0).random((2, 10)), jnp.float32)
    kept = jax.vmap(non_maximum_suppression)(boxes, scores)
    for each in range(2):
        np.testing.assert_array_equal(
            kept[each], non_maximum_suppression(boxes[each], scores[each])
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: box_iou(np.ones((2, 3)), np.ones((2, 4))), r"a must have shape \[..., 4\], not"),
        (lambda: generalized_iou(np.ones(4), np.ones(4, int)), "b must be floating point"),
        (lambda: non_maximum_suppression(np.ones((2, 4)), np.ones(3)), r"not \(2, 4\) and \(3,\)"),
        (
            lambda: non_maximum_suppression(np.ones((2, 4)), np.ones(2), threshold=2),
            "threshold must be between 0 and 1, not 2",
        ),
        (
            lambda: non_maximum_suppression(np.ones((2, 4)), np.ones(2), classes=np.ones(1)),
            r"classes must have shape \(2,\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
