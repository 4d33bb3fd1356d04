"""Japanese Vowels: counts, types, values, and the .ts format."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from trivium.data import japanese_vowels
from trivium.data.japanese_vowels import parse_ts

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def data():
    return japanese_vowels()


@pytest.mark.parametrize(
    ("part", "speakers", "longest"),
    [
        ("train", [30] * 9, 26),
        ("test", [31, 35, 88, 44, 29, 24, 40, 50, 29], 29),  # the set's own size_ae.test
    ],
)
def test_counts_shapes_and_types(data, part, speakers, longest):
    utterances, labels = getattr(data, part)
    assert isinstance(utterances, list)
    assert len(utterances) == len(labels) == sum(speakers)
    assert labels.dtype == np.int32
    assert np.bincount(labels).tolist() == speakers
    assert {utterance.dtype for utterance in utterances} == {np.dtype(np.float32)}
    assert {utterance.shape[1:] for utterance in utterances} == {(12,)}
    lengths = [len(utterance) for utterance in utterances]
    assert (min(lengths), max(lengths)) == (7, longest)


def test_values_are_those_of_the_file(data):
    path = DATA / "japanese-vowels" / "JapaneseVowels_TEST.ts.gz"
    last = gzip.decompress(path.read_bytes()).decode("ascii").splitlines()[-1].split(":")
    assert int(last[-1]) == data.test.labels[-1] + 1
    third_feature = np.array([float(value) for value in last[2].split(",")], np.float32)
    np.testing.assert_array_equal(data.test.inputs[-1][:, 2], third_feature)


def test_arrays_are_fresh_at_each_call(data):
    other = japanese_vowels()
    other.train.inputs[0][:] = 9
    assert data.train.inputs[0].max() < 9
    assert japanese_vowels().train.inputs[0].max() < 9


HEADER = """\
# a comment
@problemName tiny
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength false
@classLabel true ann bob
@data
"""


def test_ts_reads_series_of_different_length_and_labels_in_the_order_of_the_header():
    inputs, labels = parse_ts(HEADER + "1,2,3:4,5,6:bob\n\n-1e-1:0.5:ann", "tiny.ts")
    np.testing.assert_array_equal(inputs[0], np.array([[1, 4], [2, 5], [3, 6]], np.float32))
    np.testing.assert_array_equal(inputs[1], np.array([[-0.1, 0.5]], np.float32))
    assert labels.tolist() == [1, 0]


def test_ts_of_one_dimension_needs_no_count():
    header = HEADER.replace("@univariate false\n@dimensions 2\n", "@univariate true\n")
    inputs, _ = parse_ts(header + "1,2:ann", "tiny.ts")
    np.testing.assert_array_equal(inputs[0], [[1], [2]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "tiny.ts: expected series after a line @data"),
        (HEADER, "tiny.ts: expected series after a line @data"),
        ("1,2:3,4:ann", "tiny.ts, line 1: expected a header line"),
        (HEADER + "1,2:3,4:eve", "line 10: expected a label of ['ann', 'bob'], found 'eve'"),
        (HEADER + "1,2:3,4", "line 10: expected a label"),
        (HEADER + "1:2:ann\n1,2:ann", "line 11: expected 2 dimensions, found 1"),
        (HEADER + "1:2:3:ann", "line 10: expected 2 dimensions, found 3"),
        (HEADER + "1,2:3:ann", "line 10: expected dimensions of one length, found [1, 2]"),
        (HEADER + "1,x:3,4:ann", "line 10: expected numbers with commas between them"),
        (HEADER + "1,:3,4:ann", "line 10: expected numbers with commas between them"),
        (HEADER + "?,2:3,4:ann", "line 10: expected numbers with commas between them"),
        (HEADER + ":3:ann", "line 10: expected numbers with commas between them"),
        (HEADER + "nan,2:3,4:ann", "line 10: expected finite numbers"),
        (HEADER + "inf,2:3,4:ann", "line 10: expected finite numbers"),
        (HEADER.replace("@dimensions 2\n", "") + "1:2:ann", "line 8: expected @dimensions"),
        (HEADER.replace("@dimensions 2", "@dimensions two"), "line 9: expected @dimensions"),
        (HEADER.replace("@dimensions 2", "@dimensions 0"), "line 9: expected @dimensions"),
        (HEADER.replace("@classLabel true ann bob", "@classLabel false"), "@classLabel true and"),
        (HEADER.replace("@classLabel true ann bob\n", ""), "@classLabel true and"),
        (HEADER.replace("ann bob", "ann ann"), "@classLabel true and"),
        (HEADER.replace("@timeStamps false", "@timeStamps true"), "expected @timestamps false"),
        (HEADER.replace("@missing false", "@missing true"), "expected @missing false"),
        (HEADER.replace("@missing false", "@"), "tiny.ts, line 4: expected a header line"),
    ],
)
def test_ts_that_departs_from_the_format_is_refused_with_its_line(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_ts(text, "tiny.ts")
