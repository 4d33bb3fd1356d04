"""Which implementation of a kernel runs: one table and one rule for all of them.

A caller's `implementation="name"` is run or refused, never replaced. `implementation=None` takes
the first row of the table, for the platform at hand, whose `when` holds for the work's sizes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import jax


class Row(NamedTuple):
    """One implementation of one kernel on one platform.

    implementation: its name.
    when: sizes of the work -> whether to pick it.
    because: the measurement, or the reason, that justifies the row.
    """

    implementation: str
    when: Callable[..., bool]
    because: str


def _always(**_) -> bool:
    return True


def _never(**_) -> bool:
    return False


_DEFINITION = Row("reference", _never, "the definition: read it, differentiate it in any mode")
_FUSED: dict[str, tuple[Row, ...]] = {
    "other": (Row("reference", _always, "elementwise and row sums: XLA fuses them"),)
}
_RECURRENCE: dict[str, tuple[Row, ...]] = {
    "cpu": (
        Row(
            "chunked",
            _always,
            "LSTM(64), 16 features, 100 steps: gradient at 128 sequences 24 ms, reference 37, "
            "scan 51; at 32 sequences 6.5, 7.4, 8.8",
        ),
        Row("scan", _never, "slower, and its gradient keeps every gate of every step"),
        _DEFINITION,
    ),
    "other": (
        Row("chunked", _always, "one product a step inside the loop, whose launches cost most"),
        Row("scan", _never, "the weights' gradients are products inside the loop"),
        _DEFINITION,
    ),
}

# Rows are in the order best first. Times are taken on two cores with AVX-512, float32, the
# least of several alternating runs.
TABLE: dict[str, dict[str, tuple[Row, ...]]] = {
    "conv2d": {
        "cpu": (
            Row(
                "im2col",
                _always,
                "3x3 gradient of 64 images, xla in brackets: 28x28, 1 to 32, 1.6 ms (4.9); 28x28, "
                "32 to 64, 36 (41); 14x14, 64 to 128, 25 (32)",
            ),
            Row("xla", _never, "forward alone is faster with many channels: 20 ms against 26"),
            _DEFINITION,
        ),
        "other": (
            Row("xla", _always, "the vendor's convolution library"),
            Row("im2col", _never, "writes every cell once for each tap"),
            _DEFINITION,
        ),
    },
    "max_pool": {
        "other": (
            Row(
                "taps",
                lambda overlap, **_: not overlap,
                "with it the article's CNN step, batch 32, takes 3.6 ms, and 11.3 with xla",
            ),
            Row("xla", _always, "3x3 at stride 2, 32x26x26x32: gradient 12 ms, taps 26"),
            _DEFINITION,
        ),
    },
    "avg_pool": {
        "cpu": (
            Row("reference", _always, "2x2, 32x26x26x32: gradient 0.28 ms, xla 0.40"),
            Row("xla", _never, "slower, forward and gradient"),
        ),
        "other": (
            Row("xla", _always, "the compiler's own windowed reduction"),
            _DEFINITION,
        ),
    },
    "rnn": _RECURRENCE,
    "gru": _RECURRENCE,
    "lstm": _RECURRENCE,
    "linear_recurrence": {
        "cpu": (
            Row("reference", _always, "8x2048x64: gradient 7.9 ms, associative 30"),
            Row("associative", _never, "a core has no use for log2(T) passes over memory"),
        ),
        "other": (
            Row("associative", _always, "2 log2(T) launches rather than T"),
            _DEFINITION,
        ),
    },
    "linear_attention": {
        "other": (
            Row(
                "chunked",
                _always,
                "16x256x4x12: gradient 24 ms, reference 36; no loop over steps to launch",
            ),
            _DEFINITION,
        ),
    },
    "selective_scan": {
        "cpu": (
            Row("reference", _always, "16x256x64, 8 states: gradient 64 ms, associative 232"),
            Row("associative", _never, "log2(T) passes over states that fit no cache"),
        ),
        "other": (
            Row("associative", _always, "2 log2(T) launches rather than T"),
            _DEFINITION,
        ),
    },
    "attention": {
        "other": (
            Row(
                "blockwise",
                lambda queries, keys, **_: queries * keys >= 128 * 128,
                "gradient, reference in brackets: 1x1024x8x64, 57 ms (229); 32x256x12x32, 228 (473)"
                ", and memory linear in T",
            ),
            Row("reference", _always, "32x64x12x32: forward 4.8 ms, blockwise 6.2"),
        ),
    },
    "layer_norm": _FUSED,
    "rms_norm": _FUSED,
    "rotary": _FUSED,
}

# What is written by hand for GPU and TPU runs there alone, and stands behind all other rows.
_BY_HAND = Row("pallas", _never, "not yet timed on such a device: it has to be asked for by name")
for _kernel in ("attention", "layer_norm", "rms_norm"):
    _platforms = TABLE[_kernel]
    for _name in ("gpu", "tpu"):
        _platforms = {**_platforms, _name: (*_platforms.get(_name, _platforms["other"]), _BY_HAND)}
    TABLE[_kernel] = _platforms


class Target(NamedTuple):
    """Where a kernel is to run; part of what selects its code.

    platform: as `jax.default_backend()` names it: "cpu", "gpu", "tpu".
    interpret: run what is written by hand for the platform with XLA instead, step by step: slow,
        and possible on a CPU.
    """

    platform: str
    interpret: bool = False


_TARGET: ContextVar[Target | None] = ContextVar("target", default=None)


def target() -> Target:
    """The platform at hand, or the one that `aimed_at` names."""
    return _TARGET.get() or Target(jax.default_backend())


@contextmanager
def aimed_at(platform: str, *, interpret: bool = False) -> Iterator[None]:
    """Inside, kernels are chosen as on another platform: to export to it, or to test without it.

    platform: "gpu" or "tpu" (or "cpu").
    interpret: run hand-written kernels on the platform at hand, interpreted.
    A function that `jax.jit` has compiled before, outside, stays what it was.
    """
    token = _TARGET.set(Target(platform, interpret))
    try:
        yield
    finally:
        _TARGET.reset(token)


def implementations(name: str) -> tuple[str, ...]:
    """The names of a kernel's implementations that can run here, best first.

    name: the kernel's name, such as "attention".
    Raises `ValueError` for a name that is no kernel's.
    """
    return tuple(row.implementation for row in _rows(name))


def choose(kernel: str, implementation: str | None, **sizes: int | bool) -> str:
    """The implementation to run: the one asked for, or for None the table's.

    sizes: what the rows' conditions look at.
    Raises `ValueError` for a name the kernel does not have, and `NotImplementedError` for one that
    it has on another platform only.
    """
    rows = _rows(kernel)
    if implementation is None:
        return next(row.implementation for row in rows if row.when(**sizes))
    names = tuple(row.implementation for row in rows)
    if implementation not in names:
        elsewhere = [
            platform
            for platform, others in TABLE[kernel].items()
            if implementation in (row.implementation for row in others)
        ]
        if elsewhere:
            raise NotImplementedError(
                f"implementation: {implementation!r} of {kernel} needs a "
                f"{' or a '.join(name.upper() for name in elsewhere)}, and this is a "
                f"{target().platform.upper()}; here there are {', '.join(map(repr, names))}"
            )
        raise ValueError(
            f"implementation: expected None or one of {', '.join(map(repr, names))} "
            f"for {kernel}, received {implementation!r}"
        )
    return implementation


def _rows(kernel: str) -> tuple[Row, ...]:
    if kernel not in TABLE:
        raise ValueError(f"name: expected one of {', '.join(TABLE)}, received {kernel!r}")
    platforms = TABLE[kernel]
    return platforms.get(target().platform, platforms["other"])
