"""The detector: targets that decode to their boxes, losses by their formulas, finding squares."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from filled import filled
from flax import nnx

from trivium.models import (
    Detector,
    DetectorMaps,
    ResNet,
    box_iou,
    decode,
    detection_loss,
    detection_targets,
    focal_loss,
    generalized_iou,
    map_boxes,
)
from trivium.train import fit

# Two pictures of 32 x 32: two objects of which one touches the border, and one object.
BOXES = np.array([[[2, 3, 13, 10], [16, 20, 32, 32]], [[5, 4, 9, 21], [0, 0, 0, 0]]], np.float32)
CLASSES = np.array([[2, 0], [1, -1]], np.int32)


def build(classes):
    def new():
        backbone = ResNet(2, widths=(6, 8, 8), depths=(0, 1, 1), rngs=nnx.Rngs(0))
        return Detector(backbone, classes, stride=2, hidden=8, rngs=nnx.Rngs(1))

    model = filled(new)
    model.heat.bias[...] = jnp.full(classes, -math.log(9), jnp.float32)
    return model


@pytest.fixture(scope="module")
def model():
    return build(3)


@pytest.fixture(scope="module")
def targets():
    return jax.jit(lambda: detection_targets(BOXES, CLASSES, (8, 8), stride=4, count=3))()


def images(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def test_targets_decode_to_the_boxes_they_were_drawn_from(targets):
    found = decode(targets.heat, targets.size, targets.offset, stride=4, count=3)
    for image, count in ((0, 2), (1, 1)):
        assert found.scores[image].tolist()[:count] == [1.0] * count
        assert found.scores[image, count] < 0.5
        order = np.argsort(-np.asarray(found.classes[image, :count]))
        np.testing.assert_allclose(found.boxes[image, :count][order], BOXES[image, :count])
        assert found.classes[image, :count][order].tolist() == CLASSES[image, :count].tolist()


def test_heat_is_one_at_the_middles_and_falls_off_with_the_size_of_the_box(targets):
    heat = np.asarray(targets.heat)
    # Middles (7.5, 6.5) and (24, 26) at stride 4, (7, 12.5) on the second picture.
    assert np.argwhere(heat == 1).tolist() == [[0, 1, 1, 2], [0, 6, 6, 0], [1, 1, 3, 1]]
    np.testing.assert_allclose(heat[0, 6, 5, 0], np.exp(-0.5 / (0.09 * 12 / 4) ** 2), rtol=1e-5)
    np.testing.assert_allclose(heat[0, 5, 6, 0], np.exp(-0.5 / (0.09 * 16 / 4) ** 2), rtol=1e-5)
    np.testing.assert_array_equal(targets.weight, heat.max(-1))


def test_every_cell_near_a_middle_has_the_box_of_its_object(targets):
    boxes = map_boxes(targets.size, targets.offset, stride=4)
    np.testing.assert_allclose(boxes[0, 1, 1], BOXES[0, 0])
    np.testing.assert_allclose(boxes[0, 5, 6], BOXES[0, 1])
    assert np.all((np.asarray(targets.offset)[0, 1, 1] >= 0) & (targets.offset[0, 1, 1] < 1))


def test_an_empty_picture_has_no_heat():
    targets = detection_targets(
        np.zeros((1, 2, 4), np.float32), np.full((1, 2), -1), (4, 4), stride=4, count=2
    )
    assert not np.any(targets.heat)
    assert not np.any(targets.weight)
    assert np.isfinite(targets.offset).all()


def test_focal_loss_by_its_formula():
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    targets = np.array([0, 0.3, 0.9, 1], np.float32) * np.ones((5, 1), np.float32)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = np.where(
        targets == 1, -((1 - p) ** 2) * np.log(p), -((1 - targets) ** 4) * p**2 * np.log(1 - p)
    )
    np.testing.assert_allclose(focal_loss(logits, targets), expected, rtol=1e-4)
    slope = jax.grad(lambda x: focal_loss(x, jnp.float32(0)) + focal_loss(-x, jnp.float32(1)))
    assert np.isfinite(slope(jnp.float32(200)))


def test_the_loss_is_heat_by_objects_and_boxes_by_weight(targets):
    random = np.random.default_rng(1)
    heat, size, offset = (
        random.normal(size=(2, 8, 8, channels)).astype(np.float32) for channels in (3, 2, 2)
    )
    maps = DetectorMaps(heat, np.exp(size) * 8, offset)
    labels = np.concatenate([BOXES, CLASSES[..., None].astype(np.float32)], axis=-1)
    found = jax.jit(lambda maps: detection_loss(maps, labels, stride=4, box=3.0))(maps)
    peaks = np.asarray(focal_loss(heat, targets.heat)).sum((1, 2, 3)) / [2, 1]
    overlap = generalized_iou(
        map_boxes(maps.size, maps.offset, stride=4),
        map_boxes(targets.size, targets.offset, stride=4),
    )
    weight = np.asarray(targets.weight)
    boxes = (weight * (1 - np.asarray(overlap))).sum((1, 2)) / weight.sum((1, 2))
    np.testing.assert_allclose(found, peaks + 3 * boxes, rtol=1e-5)


def test_peaks_are_local_maxima_of_their_class():
    heat = np.zeros((1, 4, 4, 2), np.float32)
    heat[0, 1, 1, 0], heat[0, 1, 2, 0], heat[0, 1, 2, 1], heat[0, 3, 3, 0] = 0.9, 0.8, 0.7, 0.6
    size, offset = np.full((1, 4, 4, 2), 4, np.float32), np.full((1, 4, 4, 2), 0.5, np.float32)
    found = decode(heat, size, offset, stride=2, count=4)
    np.testing.assert_allclose(found.scores[0], [0.9, 0.7, 0.6, 0], atol=1e-7)
    assert found.classes[0, :3].tolist() == [0, 1, 0]
    # The last box would reach beyond the picture of 8 x 8 pixels.
    np.testing.assert_allclose(found.boxes[0, :3], [[1, 1, 5, 5], [1, 3, 5, 7], [5, 5, 8, 8]])


def test_shapes(model):
    model.eval()
    x = images(2, 8, 16, 1)
    maps = jax.eval_shape(model, x)
    assert [part.shape for part in maps] == [(2, 4, 8, 3), (2, 4, 8, 2), (2, 4, 8, 2)]
    found = jax.eval_shape(lambda x: model.detect(x, count=5), x)
    assert [part.shape for part in found] == [(2, 5, 4), (2, 5), (2, 5)]


def test_at_first_every_cell_says_one_in_ten():
    def bias():
        backbone = ResNet(2, widths=(4,), depths=(0,), rngs=nnx.Rngs(0))
        return Detector(backbone, 3, stride=1, hidden=2, rngs=nnx.Rngs(1)).heat.bias[...]

    np.testing.assert_allclose(jax.nn.sigmoid(jax.jit(bias)()), 0.1, rtol=1e-6)


def test_it_finds_squares():
    """One bright square a picture, of class 0 or 1 by its brightness."""
    random = np.random.default_rng(0)
    corners, sides = random.integers(0, 8, (64, 2)), random.integers(6, 9, 64)
    classes = random.integers(0, 2, 64)
    x, labels = np.zeros((64, 16, 16, 1), np.float32), np.zeros((64, 1, 5), np.float32)
    for number, ((y0, x0), side) in enumerate(zip(corners, sides, strict=True)):
        x[number, y0 : y0 + side, x0 : x0 + side] = 0.4 + 0.6 * classes[number]
        labels[number, 0] = y0, x0, y0 + side, x0 + side, classes[number]
    model = build(2)

    def loss(maps, labels):
        return detection_loss(maps, labels, stride=2)

    history = fit(
        model,
        (x, labels),
        epochs=40,
        optimizer=optax.adam(1e-2),
        loss=loss,
        metric=None,
        batch_size=16,
        progress=False,
    )
    assert np.isfinite(history.loss).all()
    model.eval()
    found = nnx.jit(lambda model, x: model.detect(x, count=4))(model, x)
    assert np.all(np.diff(found.scores, axis=1) <= 0)
    assert (np.asarray(found.classes[:, 0]) == classes).mean() > 0.95
    overlap = box_iou(found.boxes[:, :1], jnp.asarray(labels[:, :, :4]))
    assert np.mean(overlap) > 0.75


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model(images(2, 8, 10, 1)), r"multiples of 4, not \(8, 10\)"),
        (lambda model: model(images(2, 8, 8, 3)), r"images must have shape \[B, H, W, 1\]"),
        (lambda model: Detector(model.backbone, 3, stride=3, rngs=nnx.Rngs(0)), r"\[1, 2, 4\]"),
        (lambda model: Detector(model.backbone, 0, rngs=nnx.Rngs(0)), "classes must be at least"),
        (
            lambda _: detection_targets(BOXES, CLASSES[:1], (8, 8), stride=4, count=3),
            r"\[B, M, 4\] and \[B, M\], not",
        ),
        (lambda _: focal_loss(np.ones(2), np.ones(3)), "logits and targets must have one shape"),
        (
            lambda _: decode(*(np.ones((1, 2, 2, 2), np.float32),) * 3, stride=1, count=9),
            "count must be from 1 to 8, not 9",
        ),
        (
            lambda _: detection_loss(None, np.ones((2, 4), np.float32)),
            r"labels must have shape \[B, M, 5\]",
        ),
    ],
)
def test_bad_input(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)
