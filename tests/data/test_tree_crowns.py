"""Tree crowns: counts, where and how large the boxes are, and what is refused."""

import re
import subprocess
import sys

import numpy as np
import pytest

from trivium.data import tree_crowns
from trivium.data.tree_crowns import COLUMNS, parse_boxes


@pytest.fixture(scope="module")
def data():
    return tree_crowns()


def test_counts_shapes_and_types(data):
    found = {each.name: (each.image.shape, each.boxes.shape) for each in data.photographs}
    assert found == {
        "yell-528000-4978000": ((1152, 1024, 3), (156, 4)),
        "yell-541000-4977000": ((1035, 1249, 3), (279, 4)),
        "osbs-029": ((400, 400, 3), (61, 4)),
        "soap-061": ((400, 400, 3), (37, 4)),
    }
    for each in data.photographs:
        assert each.image.dtype == each.boxes.dtype == np.float32


def test_images_are_photographs_with_red_green_and_blue_in_0_to_1(data):
    for each in data.photographs:
        assert each.image.min() >= 0
        assert 0.9 < each.image.max() <= 1
        red, green, blue = each.image.mean((0, 1))
        assert 0.25 < blue < green < 0.65
        assert red < green


def test_boxes_lie_on_their_photograph_and_are_as_large_as_crowns(data):
    for each in data.photographs:
        y0, x0, y1, x1 = each.boxes.T
        height, width = each.image.shape[:2]
        np.testing.assert_array_equal(each.boxes, each.boxes.round())
        assert min(y0.min(), x0.min()) == 0
        assert y1.max() == height
        assert x1.max() <= width
        # Only what the edge cuts is smaller than a meter; the widest crowns have about eleven.
        inside = (y0 > 0) & (x0 > 0) & (y1 < height) & (x1 < width)
        meters = np.sqrt((y1 - y0) * (x1 - x0)) / 10
        assert meters[inside].min() > 0.9
        assert 2.5 < np.median(meters) < 4.5
        assert meters.max() < 11
        assert len(np.unique(each.boxes, axis=0)) == len(each.boxes)


def test_boxes_lie_on_crowns(data):
    """Leaves are rougher than ground: boxes turned upside down would lie on smoother pixels."""

    def roughness(image, boxes):
        steps = np.abs(np.diff(image[..., 1], axis=1))
        return np.mean([steps[y0:y1, x0 : x1 - 1].mean() for y0, x0, y1, x1 in boxes])

    for name, image, drawn in data.photographs[:2]:  # on the others leaves are everywhere
        boxes = drawn.astype(int)
        turned = boxes.copy()
        turned[:, [0, 2]] = len(image) - boxes[:, [2, 0]]
        assert roughness(image, boxes) > 1.1 * roughness(image, turned), name


def test_arrays_are_fresh_at_each_call(data):
    other = tree_crowns()
    other.photographs[0].image[:] = 9
    other.photographs[0].boxes[:] = -1
    again = tree_crowns().photographs[0]
    for each in (data.photographs[0], again):
        assert each.image.max() <= 1
        assert each.boxes.min() >= 0


def test_importing_the_data_package_does_not_import_pillow():
    code = "import sys, trivium.data; sys.exit('PIL' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


HEADER = ",".join(COLUMNS)
SIZES = {"a": (10, 20), "b": (5, 5)}


def test_boxes_are_sorted_out_by_photograph():
    boxes = parse_boxes(f"{HEADER}\nb,0,0,5,5\na,1,2,10,20\nb,1,1,2,3\n", "x.csv", SIZES)
    assert list(boxes) == ["a", "b"]
    np.testing.assert_array_equal(boxes["a"], [[1, 2, 10, 20]])
    np.testing.assert_array_equal(boxes["b"], [[0, 0, 5, 5], [1, 1, 2, 3]])
    assert boxes["b"].dtype == np.float32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.csv, line 1: expected the header photograph,y0,x0,y1,x1"),
        ("photograph,x0,y0,x1,y1", "x.csv, line 1: expected the header photograph,y0"),
        (HEADER, "x.csv: expected boxes of a, found none"),
        (f"{HEADER}\na,1,2,3,4", "x.csv: expected boxes of b, found none"),
        (f"{HEADER}\na,1,2,3,4\na,1,2,3", "x.csv, line 3: expected 5 cells, found 4"),
        (f"{HEADER}\na,1,2,3,4,5", "x.csv, line 2: expected 5 cells, found 6"),
        (f"{HEADER}\n\na,1,2,3,4", "x.csv, line 2: expected 5 cells, found 0"),
        (f"{HEADER}\nc,1,2,3,4", "line 2: expected a photograph of ['a', 'b'], found 'c'"),
        (f"{HEADER}\na,1,2,3,four", "line 2: expected whole numbers of pixels, found ['1', '2'"),
        (f"{HEADER}\na,-1,2,3,4", "line 2: expected whole numbers of pixels, found ['-1'"),
        (f"{HEADER}\na,1,2,3.5,4", "line 2: expected whole numbers"),
        (f"{HEADER}\na,1,,3,4", "line 2: expected whole numbers"),
        (f"{HEADER}\na,3,2,3,4", "line 2: expected y0 < y1 <= 10 and x0 < x1 <= 20, found (3, 2"),
        (f"{HEADER}\na,1,4,3,2", "line 2: expected y0 < y1 <= 10 and x0 < x1 <= 20"),
        (f"{HEADER}\na,1,2,11,4", "line 2: expected y0 < y1 <= 10 and x0 < x1 <= 20"),
        (f"{HEADER}\nb,1,2,3,6", "line 2: expected y0 < y1 <= 5 and x0 < x1 <= 5"),
    ],
)
def test_text_of_another_form_is_refused_with_its_line(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_boxes(text, "x.csv", SIZES)
