"""Fashion-MNIST: counts, types, values, and the IDX format."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from trivium.data import fashion_mnist
from trivium.data.fashion_mnist import parse_idx

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def data():
    return fashion_mnist()


def test_shapes_types_and_range(data):
    for part, count in ((data.train, 60_000), (data.test, 10_000)):
        images, labels = part
        assert images.shape == (count, 28, 28, 1)
        assert images.dtype == np.float32
        assert images.min() == 0
        assert images.max() == 1
        assert labels.shape == (count,)
        assert labels.dtype == np.int32
        assert np.bincount(labels).tolist() == [count // 10] * 10


def test_classes_in_the_order_of_the_authors(data):
    assert len(data.classes) == 10
    # The first training picture is an ankle boot, the first test picture too (the set's README).
    assert data.classes[data.train.labels[0]] == "Ankle boot"
    assert data.classes[data.test.labels[0]] == "Ankle boot"
    # A pair of trousers covers the fewest columns, and has a gap between the legs.
    trousers = data.train.inputs[data.train.labels == data.classes.index("Trouser")]
    widths = [(image.max(axis=0) > 0.2).sum() for image in trousers[:200]]
    bags = data.train.inputs[data.train.labels == data.classes.index("Bag")]
    assert np.mean(widths) < np.mean([(image.max(axis=0) > 0.2).sum() for image in bags[:200]])


def test_pixels_are_those_of_the_file(data):
    path = DATA / "fashion-mnist" / "t10k-images-idx3-ubyte.gz"
    pixels = np.frombuffer(gzip.decompress(path.read_bytes())[16:], np.uint8)
    np.testing.assert_array_equal(np.rint(data.test.inputs.ravel() * 255), pixels)


def test_arrays_are_fresh_at_each_call(data):
    other = fashion_mnist()
    np.testing.assert_array_equal(other.test.inputs, data.test.inputs)
    other.test.inputs[:] = 7
    other.test.labels[:] = 0
    assert data.test.inputs.max() == 1
    assert data.test.labels.max() == 9


def test_idx_reads_sizes_and_values():
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(parse_idx(content, "x"), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.idx: expected an IDX header .* found an empty file"),
        (b"\x00\x00\x08", "x.idx: expected an IDX header"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", "found 00 00 0d"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x03\x01\x02", r"expected 11 bytes .*\(3,\).* found 10"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x01\x01\x02", r"expected 9 bytes .*\(1,\).* found 10"),
        (b"\x00\x00\x08\x03\x00\x00", "found 6"),
    ],
)
def test_idx_that_does_not_fit_its_header_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        parse_idx(content, "x.idx")
