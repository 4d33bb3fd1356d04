"""Batches: every example once, few widths, little padding, the same for the same seed."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.train.batches import bucket_widths, in_order, real, same_width, shuffled

lengths_of = st.lists(st.integers(0, 30), min_size=1, max_size=40).map(np.array)


def padded(lengths, widths):
    return sum(widths[np.searchsorted(widths, lengths)])


@settings(max_examples=60, deadline=None)
@given(lengths_of, st.integers(1, 4))
def test_widths_pad_the_fewest_steps(lengths, buckets):
    widths = bucket_widths(lengths, buckets)
    candidates = np.unique(np.maximum(lengths, 1))
    best = min(
        padded(lengths, np.array([*chosen, candidates[-1]]))
        for k in range(min(buckets, len(candidates)))
        for chosen in combinations(candidates[:-1], k)
    )
    assert len(widths) <= buckets
    assert widths[-1] == max(lengths.max(), 1)
    assert padded(lengths, widths) == best


def test_many_distinct_lengths_choose_among_quantiles():
    lengths = np.random.default_rng(0).integers(1, 20_000, 5_000)
    widths = bucket_widths(lengths, 8)
    assert len(widths) == 8
    assert widths[-1] == lengths.max()
    # Uniform lengths: the best 8 widths are even, and waste 1/16 of the longest on average.
    assert padded(lengths, widths) / lengths.sum() == pytest.approx(1 + 1 / 8, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(lengths_of, st.integers(1, 7), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_visits_every_example_once(lengths, batch_size, buckets, epoch):
    widths = bucket_widths(lengths, buckets)
    order = shuffled(len(lengths), batch_size, lengths=lengths, widths=widths, epoch=epoch)
    assert order.rows.shape == (-(-len(lengths) // batch_size), batch_size)
    assert sorted(order.rows[order.rows >= 0]) == list(range(len(lengths)))
    filled_up = (order.rows < 0).any(axis=1)
    assert filled_up.sum() == (len(lengths) % batch_size > 0)
    for rows, width in zip(order.rows, order.widths, strict=True):
        assert lengths[real(rows)].max() <= width


@pytest.mark.parametrize("lengths", [None, np.arange(50) % 9 + 1])
def test_order_follows_from_seed_and_epoch(lengths):
    widths = None if lengths is None else bucket_widths(lengths, 3)

    def order(**options):
        return shuffled(50, 8, lengths=lengths, widths=widths, **options)

    same, again = order(seed=1, epoch=2), order(seed=1, epoch=2)
    np.testing.assert_array_equal(same.rows, again.rows)
    assert same.widths == again.widths
    for other in (order(seed=1, epoch=3), order(seed=2, epoch=2)):
        assert (same.rows != other.rows).any()


def test_fillers_are_real_examples_of_the_batch_they_fill():
    order = shuffled(10, 4)
    fillers = order.rows[order.rows < 0]
    assert len(fillers) == 2
    assert set(real(fillers)) <= set(range(10))


def test_widths_are_visited_in_mixed_order():
    lengths = np.repeat([2, 9], 200)
    order = shuffled(400, 10, lengths=lengths, widths=np.array([2, 9]))
    changes = sum(a != b for a, b in zip(order.widths, order.widths[1:], strict=False))
    assert changes > 10


def test_padding_is_near_the_real_count():
    random = np.random.default_rng(0)
    lengths = np.clip(random.gamma(4, 7, 8_000).astype(int), 3, 64)
    order = shuffled(8_000, 32, lengths=lengths, widths=bucket_widths(lengths, 8))
    steps = sum(32 * width for width in order.widths)
    assert steps / lengths.sum() < 1.12


def test_evaluation_goes_from_short_to_long():
    lengths = np.array([5, 1, 9, 2, 7])
    order = in_order(5, 2, lengths=lengths, widths=np.array([2, 9]))
    assert order.widths == [2, 9, 9]
    np.testing.assert_array_equal(lengths[order.rows[order.rows >= 0]], [1, 2, 5, 7, 9])


def test_runs_of_one_width():
    assert same_width([3, 3, 3, 5], 0, 10) == 3
    assert same_width([3, 3, 3, 5], 0, 2) == 2
    assert same_width([3, 3, 3, 5], 3, 10) == 4
