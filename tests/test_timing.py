"""The timing helper warms up, waits and takes turns."""

import time

import pytest

from trivium.timing import Timing, compare, measure


def test_warm_up_is_not_timed():
    calls = []

    def slow_at_first():
        calls.append(1)
        time.sleep(0.05 if len(calls) == 1 else 0.0)

    timing = measure(slow_at_first, repeats=4, warmup=1)
    assert len(calls) == 5
    assert max(timing.seconds) < 0.04


def test_waits_for_what_is_returned():
    class Lazy:
        def block_until_ready(self):
            time.sleep(0.01)

    assert measure(Lazy, repeats=2).best >= 0.01


def test_competitors_take_turns_in_alternating_order():
    order = []
    compare({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2, warmup=1)
    assert order == ["a", "b", "a", "b", "b", "a"]


def test_statistics():
    timing = Timing((0.001, 0.002, 0.003, 0.004, 0.005))
    assert (timing.best, timing.median, timing.spread) == (0.001, 0.003, (0.002, 0.004))
    assert str(timing) == "3 ms (quartiles 2 to 4)"
    assert Timing((0.5,)).spread == (0.5, 0.5)


@pytest.mark.parametrize("options", [{"repeats": 0}, {"warmup": 0}])
def test_refuses_too_few_calls(options):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        measure(lambda: None, **options)


def test_refuses_nothing_to_time():
    with pytest.raises(ValueError, match="at least one"):
        compare({})
