"""The split into training and test: exact, repeatable, near-duplicates on one side."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.data.split import hold_out, near_duplicates

TEXTS = [f"text number {n} of many, about subject {n * n}" for n in range(40)]


def words(text):
    return set("".join(c if c.isalnum() else " " for c in text.lower()).split()) or {text}


def groups_by_brute_force(texts, overlap):
    """Join every pair that shares enough, over and over until nothing changes."""
    group = list(range(len(texts)))
    changed = True
    while changed:
        changed = False
        for i in range(len(texts)):
            for j in range(i):
                a, b = words(texts[i]), words(texts[j])
                if Fraction(len(a & b), len(a | b)) >= overlap and group[i] != group[j]:
                    group[i] = group[j] = min(group[i], group[j])
                    changed = True
    return group


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=7).map(" ".join), max_size=12),
    st.sampled_from([Fraction(1, 3), Fraction(1, 2), Fraction(3, 4), Fraction(1)]),
)
def test_near_duplicates_are_those_that_comparing_every_pair_finds(texts, overlap):
    assert near_duplicates(texts, overlap) == groups_by_brute_force(texts, overlap)


def test_near_duplicates_ignore_case_and_punctuation_and_close_the_group():
    texts = ["A b, c!", "x", "a B c", "a b c d", "a b c d e", "y"]
    assert near_duplicates(texts) == [0, 1, 0, 0, 0, 5]


@pytest.mark.parametrize("overlap", [Fraction(0), Fraction(5, 4), Fraction(-1)])
def test_overlap_out_of_range_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap must be above 0 and at most 1"):
        near_duplicates(TEXTS, overlap)


def test_split_is_a_partition_and_repeats():
    train, test = hold_out(TEXTS, range(40), 10, seed=0)
    assert len(test) == 10
    assert sorted(train + test) == list(range(40))
    assert hold_out(TEXTS, range(40), 10, seed=0) == (train, test)
    assert hold_out(TEXTS, range(40), 10, seed=1) != (train, test)
    assert train != sorted(train)


def test_split_does_not_hang_on_the_order_of_the_texts():
    reverse = TEXTS[::-1]
    for rows, other in zip(
        hold_out(TEXTS, range(40), 10, seed=3),
        hold_out(reverse, range(40), 10, seed=3),
        strict=True,
    ):
        assert [TEXTS[row] for row in rows] == [reverse[row] for row in other]


def test_only_the_chosen_rows_take_part():
    train, test = hold_out(TEXTS, range(5, 25), 4, seed=0)
    assert sorted(train + test) == list(range(5, 25))


@pytest.mark.parametrize("seed", range(20))
def test_near_duplicates_stay_on_one_side_and_the_count_is_exact(seed):
    texts = [*TEXTS[:6], *(f"{text}!" for text in TEXTS[:6]), *TEXTS[6:9]]
    train, test = hold_out(texts, range(15), 5, seed=seed)
    assert len(test) == 5
    for side in (train, test):
        for row in range(6):
            assert (row in side) == (row + 6 in side)


@pytest.mark.parametrize("count", [0, -1, 40, 41])
def test_count_out_of_range_is_refused(count):
    with pytest.raises(ValueError, match=f"of the 40 texts.*got {count}"):
        hold_out(TEXTS, range(40), count, seed=0)


def test_count_that_no_whole_groups_make_is_refused():
    with pytest.raises(ValueError, match=r"whole groups of near-duplicates, got 1: 0 can"):
        hold_out(["same", "same", "other", "other"], range(4), 1, seed=0)
