"""Average precision on cases that can be counted by hand."""

import numpy as np
import pytest

from trivium.measures import average_precision

BOXES = np.array([[[0, 0, 10, 10], [20, 20, 40, 40]], [[5, 5, 15, 25], [0, 0, 0, 0]]], np.float32)
CLASSES = np.array([[0, 1], [1, -1]])


def test_what_is_right_has_one():
    found = average_precision((BOXES, 0.9 * (CLASSES >= 0), CLASSES), BOXES, CLASSES, count=3)
    np.testing.assert_allclose((found.mean, found.at_50, found.at_75), 1)
    np.testing.assert_allclose(found.per_class, [1, 1, np.nan])
    assert found.precision.shape == (3, 101)


def test_a_false_alarm_and_a_box_that_fits_in_part():
    # Class 0: the box is 10 x 10, what was found covers 8 rows of it, IoU 0.8, right up to the
    # threshold 0.75 (and at 0.80, which the comparison includes): 7 of 10 thresholds.
    # Class 1: of two boxes one is found, behind a false alarm with a better score: precision 1/2
    # at recall up to 1/2, which are 51 of the 101 recalls.
    boxes = np.array([[[0, 0, 8, 10], [20, 20, 40, 40]], [[80, 80, 90, 90], [0, 0, 0, 0]]], float)
    scores = np.array([[0.9, 0.5], [0.8, 0.0]])
    found = average_precision((boxes, scores, CLASSES), BOXES, CLASSES, count=2)
    half = 51 / 101 / 2
    np.testing.assert_allclose(found.per_class, [0.7, half])
    np.testing.assert_allclose(found.at_50, (1 + half) / 2)
    np.testing.assert_allclose(found.at_75, (1 + half) / 2)
    np.testing.assert_allclose(found.mean, (0.7 + half) / 2)
    np.testing.assert_allclose(found.precision[1], np.where(np.arange(101) <= 50, 0.5, 0))


def test_nothing_found_has_nothing():
    found = average_precision((BOXES, np.zeros((2, 2)), CLASSES), BOXES, CLASSES, count=2)
    assert found.mean == 0


def test_only_so_many_detections_count():
    boxes = np.zeros((1, 150, 4), np.float32)
    boxes[0, :, 0] = 10 * np.arange(150)
    boxes[0, :, 2:] = boxes[0, :, :2] + 10
    scores, classes = np.linspace(1, 0.5, 150)[None], np.zeros((1, 150), int)
    few = average_precision((boxes, scores, classes), boxes, classes, count=1)
    np.testing.assert_allclose(few.mean, 67 / 101)  # recall 0 to 0.66, for 100 of 150
    every = average_precision((boxes, scores, classes), boxes, classes, count=1, most=150)
    assert every.mean == 1
    with pytest.raises(ValueError, match="most must be at least 1, not 0"):
        average_precision((boxes, scores, classes), boxes, classes, count=1, most=0)


@pytest.mark.parametrize(
    ("detections", "classes", "message"),
    [
        ((BOXES[0], np.ones((2, 2)), CLASSES), CLASSES, r"detections must have boxes \[N, M, 4\]"),
        ((BOXES, np.ones(2), CLASSES), CLASSES, "detections must have scores"),
        ((BOXES, np.ones((2, 2)), CLASSES), CLASSES[:1], "boxes and classes must have"),
        ((BOXES, np.ones((2, 2)), CLASSES), -np.ones((2, 2), int), "must name at least one box"),
    ],
)
def test_bad_input(detections, classes, message):
    with pytest.raises(ValueError, match=message):
        average_precision(detections, BOXES, classes, count=2)
