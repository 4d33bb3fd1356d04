"""Which implementation of a kernel runs: one table and one rule for all of them.

A caller's `implementation="name"` is run or refused, never replaced. `implementation=None` takes
the first row of the table, for the platform at hand, whose `when` holds for the work's sizes.
"""

from collections.abc import Callable
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


_REFERENCE = Row("reference", _never, "the definition: read it, differentiate it in any mode")

TABLE: dict[str, dict[str, tuple[Row, ...]]] = {
    "conv2d": {
        "cpu": (
            Row("im2col", lambda groups, **_: groups == 1, ""),
            Row("xla", _always, ""),
            _REFERENCE,
        ),
        "other": (
            Row("xla", _always, "the vendor's convolution library"),
            Row("im2col", _never, ""),
            _REFERENCE,
        ),
    },
    "max_pool": {
        "other": (
            Row("taps", _always, ""),
            Row("xla", _never, ""),
            _REFERENCE,
        ),
    },
    "avg_pool": {
        "other": (
            Row("xla", _always, ""),
            _REFERENCE,
        ),
    },
    "rnn": {"other": (Row("scan", _always, ""), _REFERENCE)},
    "gru": {"other": (Row("scan", _always, ""), _REFERENCE)},
    "lstm": {"other": (Row("scan", _always, ""), _REFERENCE)},
    "attention": {
        "other": (
            Row("blockwise", lambda queries, keys, **_: queries * keys >= 1024 * 1024, ""),
            Row("reference", _always, ""),
        ),
    },
    "linear_recurrence": {"other": (Row("associative", _always, ""), _REFERENCE)},
    "layer_norm": {"other": (Row("reference", _always, "XLA fuses it"),)},
    "rms_norm": {"other": (Row("reference", _always, "XLA fuses it"),)},
    "rotary": {"other": (Row("reference", _always, "XLA fuses it"),)},
}


def implementations(name: str) -> tuple[str, ...]:
    """The names of a kernel's implementations that can run here, best first.

    name: the kernel's name, such as "attention".
    Raises `ValueError` for a name that is no kernel's.
    """
    return tuple(row.implementation for row in _rows(name))


def choose(kernel: str, implementation: str | None, **sizes: int) -> str:
    """The implementation to run: the one asked for, or for None the table's.

    sizes: what the rows' conditions look at.
    Raises `ValueError` for a name the kernel does not have.
    """
    rows = _rows(kernel)
    if implementation is None:
        return next(row.implementation for row in rows if row.when(**sizes))
    names = tuple(row.implementation for row in rows)
    if implementation not in names:
        raise ValueError(
            f"implementation: expected None or one of {', '.join(map(repr, names))} "
            f"for {kernel}, received {implementation!r}"
        )
    return implementation


def _rows(kernel: str) -> tuple[Row, ...]:
    if kernel not in TABLE:
        raise ValueError(f"name: expected one of {', '.join(TABLE)}, received {kernel!r}")
    platforms = TABLE[kernel]
    return platforms.get(jax.default_backend(), platforms["other"])
