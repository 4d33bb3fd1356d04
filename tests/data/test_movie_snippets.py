"""Movie snippets: counts, cleaning, and a split that never changes."""

import hashlib
import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from trivium.data import movie_snippets
from trivium.data.movie_snippets import parse_ratings


@pytest.fixture(scope="module")
def data():
    return movie_snippets()


def test_counts_and_types(data):
    assert len(data.texts) == len(data.ratings) == 10_605
    assert data.ratings.dtype == np.float32
    assert (data.ratings > 0).sum() == 5_242
    assert (data.ratings < 0).sum() == 5_326
    assert (data.ratings == 0).sum() == 37
    assert len(data.train.inputs) + len(data.test.inputs) == 10_072
    assert len(data.test.inputs) == 2_000
    assert data.classes == ("negative", "positive")
    for part, rows in ((data.train, data.train_rows), (data.test, data.test_rows)):
        texts, labels = part
        assert isinstance(texts, list)
        assert labels.dtype == np.int32
        assert texts == [data.texts[row] for row in rows]
        np.testing.assert_array_equal(labels, data.ratings[rows] > 0)
        assert (np.abs(data.ratings[rows]) >= 0.5).all()
        assert 0.45 < labels.mean() < 0.55


def test_texts_are_clean(data):
    for text in data.texts:
        assert text
        assert text == " ".join(text.split())
        assert text.isprintable()
        assert "''" not in text
        assert not re.search(r"&(#\d+|[a-z]+);|<[a-z/]", text)
    assert data.texts[0].startswith(
        'The Rock is destined to be the 21st Century\'s new "Conan" and'
    )
    assert any("Lovely & Amazing" in text for text in data.texts)
    assert "Touché!" in data.texts


def test_train_and_test_are_disjoint_and_shuffled(data):
    assert not set(data.train_rows) & set(data.test_rows)
    assert not set(data.train.inputs) & set(data.test.inputs)
    for rows in (data.train_rows, data.test_rows):
        # Half of the neighbors of a shuffled list ascend.
        assert 0.45 < (np.diff(rows) > 0).mean() < 0.55


def test_no_test_snippet_shares_three_quarters_of_its_words_with_a_training_one(data):
    count = CountVectorizer(binary=True, token_pattern=r"\w+", dtype=np.int32).fit(data.texts)
    train = count.transform(data.train.inputs)
    test = count.transform(data.test.inputs)
    shared = (test @ train.T).tocoo()
    sizes = [np.asarray(words.sum(axis=1)).ravel() for words in (test, train)]
    either = sizes[0][shared.row] + sizes[1][shared.col] - shared.data
    assert (4 * shared.data < 3 * either).all()


def test_repeated_snippets_are_on_one_side(data):
    sides = [set(data.train_rows.tolist()), set(data.test_rows.tolist())]
    rows_of = {}
    for row, text in enumerate(data.texts):
        rows_of.setdefault(text, set()).add(row)
    repeated = [rows for rows in rows_of.values() if len(rows) > 1]
    assert len(repeated) == 2
    for rows in repeated:
        assert any(rows <= side for side in sides)


def fingerprint(data):
    lines = []
    for name in ("train", "test"):
        texts, labels = getattr(data, name)
        lines += [f"{name}\t{label}\t{text}" for text, label in zip(texts, labels, strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "ff7471afb69aab010d92e95f29eecb144240497ead38dac6013272c9dcdefa90"),
        (
            {"seed": 1, "held_out": 500, "minimum": 1.0},
            "a8e0f7656e3a58d89c3234d2d3a11811d1e21f08beb83fc2cc1c098b17c937ec",
        ),
    ],
)
def test_split_is_the_one_that_published_numbers_stand_on(arguments, expected):
    assert fingerprint(movie_snippets(**arguments)) == expected


def test_seed_changes_the_split_and_numpy_integers_are_integers(data):
    other = movie_snippets(seed=np.int64(1), held_out=np.int32(2000))
    assert len(other.test.inputs) == 2_000
    common = set(other.test_rows) & set(data.test_rows)
    assert 300 < len(common) < 500  # 2000 * 2000 / 10072 = 397 by chance


def test_minimum_zero_keeps_all_but_the_undecided():
    data = movie_snippets(minimum=0)
    assert len(data.train.inputs) + len(data.test.inputs) == 10_605 - 37
    assert (data.ratings[data.train_rows] != 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 0.5}, "seed must be an integer, got 0.5"),
        ({"seed": True}, "seed must be an integer, got True"),
        ({"seed": None}, "seed must be an integer, got None"),
        ({"held_out": 0.2}, "held_out must be an integer, got 0.2"),
        ({"held_out": 0}, "held_out must be at least 1 and below 10072.*got 0"),
        ({"held_out": -1}, "held_out must be at least 1 and below 10072.*got -1"),
        ({"held_out": 10_072}, "held_out must be at least 1 and below 10072.*got 10072"),
        ({"minimum": -0.1}, "minimum must be a distance from zero in 0..4, got -0.1"),
        ({"minimum": 4.1}, "minimum must be a distance from zero in 0..4, got 4.1"),
        ({"minimum": float("nan")}, "minimum must be a distance from zero in 0..4, got nan"),
        ({"minimum": "0.5"}, "minimum must be a distance from zero in 0..4, got '0.5'"),
        ({"minimum": 3.99}, "held_out must be at least 1 and below 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        movie_snippets(**arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.txt, line 1: expected number, rating and text"),
        ("1\t0.5\tfine\n2\t0.5", "x.txt, line 2: .* found 2 fields"),
        ("1\t0.5\tfine\tmore", "line 1: .* found 4 fields"),
        ("1\tgood\tfine", "line 1: expected a mean rating in -4..4, found 'good'"),
        ("1\t4.5\tfine", "line 1: expected a mean rating in -4..4, found '4.5'"),
        ("1\tnan\tfine", "line 1: expected a mean rating in -4..4, found 'nan'"),
        ("1\t0.5\t \r\n", "line 1: expected a text, found none"),
        ("1\t0.5\tfine\n\n", "line 2: .* found 1 fields"),
    ],
)
def test_ratings_that_depart_from_the_format_are_refused_with_their_line(text, message):
    with pytest.raises(ValueError, match=message):
        parse_ratings(text, "x.txt")
