"""How a classifier's answers fall on the groups of people it answers about."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class GroupRates:
    """Rates of yes-or-no answers in each of G groups, float64 [G]; NaN where nobody is counted.

    count: people. base: share whose label is 1. selection: share answered yes. accuracy: share
    answered rightly. tpr: share answered yes among those with label 1; fpr: among those with
    label 0. ppv: share with label 1 among those answered yes.
    """

    count: NDArray[np.float64]
    base: NDArray[np.float64]
    selection: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    tpr: NDArray[np.float64]
    fpr: NDArray[np.float64]
    ppv: NDArray[np.float64]

    def gap(self, rate: str) -> float:
        """The largest difference of a rate between two groups."""
        values = getattr(self, rate)
        return float(values.max() - values.min())


def group_rates(labels: ArrayLike, answers: ArrayLike, groups: ArrayLike) -> GroupRates:
    """Count how answers meet labels in each group.

    labels [N]: 0 or 1. answers [N]: 0 or 1, or the probability of a yes where the rule draws lots;
    the rates are then expectations. groups [N]: integers from 0.

    Raises ValueError where lengths differ or values are out of range.
    Source: Hardt, Price and Srebro 2016; Barocas, Hardt and Narayanan 2023, chapter 3.
    """
    y, a, g = np.asarray(labels), np.asarray(answers, np.float64), np.asarray(groups)
    if y.ndim != 1 or not y.shape == a.shape == g.shape or len(y) == 0:
        raise ValueError(
            "labels, answers and groups must be vectors of one length, at least 1, not of shapes "
            f"{y.shape}, {a.shape} and {g.shape}"
        )
    if not np.isin(y, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not ((a >= 0) & (a <= 1)).all():
        raise ValueError("answers must lie in 0..1")
    if not np.issubdtype(g.dtype, np.integer) or g.min() < 0:
        raise ValueError("groups must be integers from 0")

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(g, values, minlength=int(g.max()) + 1), np.float64)

    y = y.astype(np.float64)
    count, positive, yes, hits = total(np.ones_like(a)), total(y), total(a), total(a * y)
    with np.errstate(invalid="ignore"):
        return GroupRates(
            count=count,
            base=positive / count,
            selection=yes / count,
            accuracy=(count - positive - yes + 2 * hits) / count,
            tpr=hits / positive,
            fpr=(yes - hits) / (count - positive),
            ppv=hits / yes,
        )
