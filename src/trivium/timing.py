"""One way to measure time, used by every chapter and benchmark.

JAX returns before the work is done and compiles at the first call, so a naive clock measures
neither. Each call here is warmed up first and waited for, and competitors take turns, so that
a noisy machine slows all of them alike.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True)
class Timing:
    """Seconds that one call took, over several repetitions."""

    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The fastest repetition: the least disturbed one."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The typical repetition."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """First and third quartile."""
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def __str__(self) -> str:
        low, high = self.spread
        return f"{self.median * 1e3:.3g} ms (quartiles {low * 1e3:.3g} to {high * 1e3:.3g})"


def measure(function: Callable[..., Any], *args: Any, repeats: int = 10, warmup: int = 2) -> Timing:
    """Time `function(*args)`: warmed up, and waited for until its arrays are ready.

    Args:
        function: anything that returns arrays, or nothing.
        args: handed over unchanged; do not pass buffers that the function donates.
        repeats: timed calls, at least 1.
        warmup: calls before the first timed one, at least 1 (the first compiles).

    Returns:
        A `Timing`, in seconds.

    Raises:
        ValueError: if `repeats` or `warmup` is below 1.
    """
    return compare({"": lambda: function(*args)}, repeats=repeats, warmup=warmup)[""]


def compare(
    functions: Mapping[str, Callable[[], Any]], *, repeats: int = 10, warmup: int = 2
) -> dict[str, Timing]:
    """Time several functions of no argument in one interleaved run.

    The order is reversed from round to round, so that no competitor always runs behind the same
    neighbor.

    Args:
        functions: name -> function; what it returns is waited for.
        repeats: rounds, at least 1.
        warmup: calls of each before the first round, at least 1.

    Returns:
        name -> `Timing`, in the order given.

    Raises:
        ValueError: if there is nothing to time, or `repeats` or `warmup` is below 1.
    """
    if not functions:
        raise ValueError("functions: expected at least one, got none")
    for name, value in (("repeats", repeats), ("warmup", warmup)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    for function in functions.values():
        for _ in range(warmup):
            jax.block_until_ready(function())
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions.items())
    for _ in range(repeats):
        for name, function in order:
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - start)
        order.reverse()
    return {name: Timing(tuple(values)) for name, values in seconds.items()}
