"""Composed scenes: the same everywhere, boxes and masks from the pixels, nothing shared."""

import hashlib

import numpy as np
import pytest

from trivium.data import Examples, compose, fashion_mnist, scenes
from trivium.data.scenes import HIDDEN

FAINTEST = np.float32(8 / 255)
FIELDS = ("images", "masks", "boxes", "classes", "counts")


@pytest.fixture(scope="module")
def found():
    return scenes(count_train=300, count_test=200, seed=3)


@pytest.fixture(scope="module")
def pictures():
    return fashion_mnist()


def squares(*values):
    """A picture for each value: a square of 10 x 10 pixels of it, in the middle."""
    images = np.zeros((len(values), 28, 28, 1), np.float32)
    for image, value in zip(images, values, strict=True):
        image[9:19, 9:19] = value
    return Examples(images, np.arange(len(values), dtype=np.int32))


def test_shapes_types_and_range(found):
    for part, count in ((found.train, 300), (found.test, 200)):
        assert len(part) == count
        assert (part.images.shape, part.images.dtype) == ((count, 96, 96, 1), np.float32)
        assert (part.masks.shape, part.masks.dtype) == ((count, 96, 96), np.uint8)
        assert (part.boxes.shape, part.boxes.dtype) == ((count, 4, 4), np.float32)
        assert (part.classes.shape, part.classes.dtype) == ((count, 4), np.int32)
        assert (part.counts.shape, part.counts.dtype) == ((count,), np.int32)
        assert part.images.min() == 0
        assert part.images.max() == 1
        assert set(np.unique(part.masks)) == set(range(11))
        assert set(np.unique(part.counts)) == {1, 2, 3, 4}
        there = np.arange(4) < part.counts[:, None]
        np.testing.assert_array_equal(part.classes >= 0, there)
        np.testing.assert_array_equal(part.boxes.any(axis=-1), there)
        np.testing.assert_array_equal(part.classes[~there], -1)
    assert found.classes[9] == "Ankle boot"


def test_masks_are_where_something_is_drawn(found):
    for part in (found.train, found.test):
        np.testing.assert_array_equal(part.masks > 0, part.images[..., 0] >= FAINTEST)
        np.testing.assert_array_equal(part.masks == 0, part.images[..., 0] == 0)


def test_boxes_go_around_what_is_seen(found):
    part = found.test
    y0, x0, y1, x1 = np.moveaxis(part.boxes, -1, 0).astype(int)
    for image in range(len(part)):
        union = np.zeros((96, 96), bool)
        for item in range(part.counts[image]):
            window = np.s_[y0[image, item] : y1[image, item], x0[image, item] : x1[image, item]]
            own = part.masks[image][window] == 1 + part.classes[image, item]
            # The first and last rows and columns hold pixels of the item's class.
            assert own[0].any()
            assert own[-1].any()
            assert own[:, 0].any()
            assert own[:, -1].any()
            union[window] = True
        assert not part.masks[image][~union].any()


def test_items_of_both_sizes_stand_at_all_places(found):
    boxes = found.train.boxes[found.train.classes >= 0]
    longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert (longest <= 28).mean() > 0.3
    assert (longest > 28).mean() > 0.3
    assert longest.max() <= 56
    assert boxes[:, :2].min() < 4
    assert boxes[:, 2:].max() > 92


def test_later_items_lie_in_front_and_hide_a_quarter_at_most():
    part = compose(squares(0.2, 0.4, 0.6, 0.8, 1.0), 400, seed=1)
    overlapping = 0
    for image in range(len(part)):
        front = np.zeros((96, 96), bool)
        for item in reversed(range(part.counts[image])):
            kind = part.classes[image, item]
            if (part.classes[image] == kind).sum() > 1:
                break  # two of a kind cannot be told apart here
            seen = part.masks[image] == 1 + kind
            y0, x0, y1, x1 = part.boxes[image, item].astype(int)
            side = max(y1 - y0, x1 - x0)
            assert side in (10, 20)
            assert seen.sum() >= (1 - HIDDEN) * side**2
            # What is missing inside the box belongs to items nearer to the viewer.
            hidden = ~seen[y0:y1, x0:x1]
            assert front[y0:y1, x0:x1][hidden].all()
            overlapping += hidden.any()
            front |= seen
    assert overlapping > 20


def test_test_scenes_show_test_pictures_only(pictures):
    for part, of in ((pictures.train, "train"), (pictures.test, "test")):
        built = getattr(scenes(count_train=20, count_test=20, seed=5), of)
        np.testing.assert_array_equal(built.images, compose(part, 20, seed=5).images)


def test_the_same_everywhere(found):
    digest = hashlib.sha256()
    for part in (found.train, found.test):
        for field in FIELDS:
            array = getattr(part, field)
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    assert digest.hexdigest() == "69c79fda69a8a796089a071b13ed8f9be0097ae6072ccc955babfdd3e39e4661"


def test_a_longer_set_begins_with_the_shorter(found, pictures):
    shorter = compose(pictures.test, 30, seed=3)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(shorter, field), getattr(found.test, field)[:30])
    other = compose(pictures.test, 30, seed=4)
    assert (other.images != shorter.images).any()


def test_no_scenes(pictures):
    empty = compose(pictures.test, 0, seed=0)
    assert empty.images.shape == (0, 96, 96, 1)
    assert empty.labels().shape == (0, 4, 5)


def test_labels_hold_boxes_and_classes(found):
    labels = found.test.labels()
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels[..., :4], found.test.boxes)
    np.testing.assert_array_equal(labels[..., 4], found.test.classes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scenes(count_test=-1), "count_test must be at least 0, not -1"),
        (lambda: compose(squares(1), 2, seed=-1), "seed must be at least 0, not -1"),
        (lambda: compose((np.ones((2, 8, 8, 1)), np.zeros(2, int)), 2, seed=0), r"\[N, 28, 28, 1"),
        (lambda: compose((squares(1, 1)[0], np.zeros(3, int)), 2, seed=0), r"integers \[2\], not"),
        (lambda: compose(squares(1, 0), 2, seed=0), "number 1 not"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
