"""Adult: counts, types, values, and the form of the files."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from trivium.data import adult
from trivium.data.adult import COLUMNS, NUMBERS, VOCABULARIES, parse_adult

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def data():
    return adult()


@pytest.mark.parametrize(
    ("part", "count", "positive", "complete"),
    [("train", 32561, 7841, 30162), ("test", 16281, 3846, 15060)],  # the last: its adult.names
)
def test_counts_shapes_and_types(data, part, count, positive, complete):
    rows = getattr(data, part)
    assert len(rows.labels) == count
    assert np.bincount(rows.labels).tolist() == [count - positive, positive]
    assert rows.complete().sum() == complete
    assert tuple(rows.numbers) == NUMBERS
    assert rows.codes.keys() == VOCABULARIES.keys() == data.vocabularies.keys()
    for column in (*rows.numbers.values(), rows.weights):
        assert column.shape == (count,)
        assert column.dtype == np.float32
    for name, column in rows.codes.items():
        assert column.shape == (count,)
        assert column.dtype == np.int32
        assert 0 <= column.min() <= column.max() < len(VOCABULARIES[name])
    assert rows.labels.dtype == np.int32


def test_shares_of_women_and_men_over_the_threshold(data):
    women = data.train.codes["sex"] == data.vocabularies["sex"].index("Female")
    assert women.sum() == 10771
    assert data.train.labels[women].mean() == pytest.approx(0.109, abs=5e-4)
    assert data.train.labels[~women].mean() == pytest.approx(0.306, abs=5e-4)


def test_every_cell_is_that_of_the_file(data):
    text = gzip.decompress((DATA / "adult" / "adult.test.gz").read_bytes()).decode()
    lines = [line for line in text.splitlines() if line and line[0] != "|"]
    rng = np.random.default_rng(0)
    for row in [0, len(lines) - 1, *rng.integers(len(lines), size=200)]:
        *cells, label = lines[row].split(", ")
        for name, cell in zip(COLUMNS, cells, strict=True):
            if name == "fnlwgt":
                assert data.test.weights[row] == float(cell)
            elif name in NUMBERS:
                assert data.test.numbers[name][row] == float(cell)
            else:
                assert data.vocabularies[name][data.test.codes[name][row]] == cell
        assert data.classes[data.test.labels[row]] + "." == label


def test_education_is_in_the_order_of_its_number(data):
    number = data.train.numbers["education-num"]
    np.testing.assert_array_equal(data.train.codes["education"] + 1, number)


def test_arrays_are_fresh_at_each_call(data):
    other = adult()
    other.train.labels[:] = 7
    other.train.codes["sex"][:] = 7
    other.vocabularies.clear()
    again = adult()
    assert again.train.labels.max() == again.train.codes["sex"].max() == 1
    assert again.vocabularies["sex"] == ("Female", "Male")


ROW = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, ?, Not-in-family, White, Male, 2174, 0, "
    "40, United-States, <=50K"
)


def test_missing_values_have_a_code_of_their_own_and_points_are_dropped():
    rows = parse_adult(f"|1x3\n{ROW}\n\n{ROW.replace('<=50K', '>50K.').replace('?', 'Sales')}", "x")
    assert rows.labels.tolist() == [0, 1]
    assert rows.complete().tolist() == [False, True]
    assert VOCABULARIES["occupation"][rows.codes["occupation"][0]] == "?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.data: expected rows, found none"),
        (ROW + ", more", "x.data, line 1: expected 14 values and a class"),
        (ROW.replace(", ", ","), "x.data, line 1: expected 14 values and a class"),
        (
            f"{ROW}\n{ROW.replace('39', 'old')}",
            "line 2: expected a whole number in age, found 'old'",
        ),
        (ROW.replace("77516", "-1"), "line 1: expected a whole number in fnlwgt"),
        (f"{ROW}\n\n{ROW.replace('Male', 'male')}", "line 3: expected a value of sex among"),
        (ROW.replace("Bachelors", "?"), "expected a value of education among"),
        (ROW.replace("<=50K", "50K"), "expected a value of the class among ['<=50K', '>50K']"),
    ],
)
def test_text_of_another_form_is_refused_with_its_line(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_adult(text, "x.data")
