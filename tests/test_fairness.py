"""Rates by group: by hand, against fairlearn, and bad input."""

import numpy as np
import pytest

from trivium.fairness import group_rates


def test_rates_of_a_case_counted_by_hand():
    labels, groups = [1, 1, 0, 0, 1, 0], [0, 0, 0, 1, 1, 1]
    rates = group_rates(labels, [1, 0, 1, 0, 1, 1], groups)
    assert rates.count.tolist() == [3, 3]
    np.testing.assert_allclose(rates.base, [2 / 3, 1 / 3])
    np.testing.assert_allclose(rates.selection, [2 / 3, 2 / 3])
    np.testing.assert_allclose(rates.accuracy, [1 / 3, 2 / 3])
    np.testing.assert_allclose(rates.tpr, [1 / 2, 1])
    np.testing.assert_allclose(rates.fpr, [1, 1 / 2])
    np.testing.assert_allclose(rates.ppv, [1 / 2, 1 / 2])
    assert rates.gap("tpr") == 0.5


def test_lots_give_expected_rates():
    rng = np.random.default_rng(0)
    labels, groups, chance = rng.integers(2, size=400), rng.integers(3, size=400), rng.random(400)
    drawn = [group_rates(labels, rng.random(400) < chance, groups) for _ in range(2000)]
    expected = group_rates(labels, chance, groups)
    for rate in ("selection", "accuracy", "tpr", "fpr"):
        mean = np.mean([getattr(each, rate) for each in drawn], axis=0)
        np.testing.assert_allclose(mean, getattr(expected, rate), atol=0.01)


def test_a_rate_of_nobody_is_nan():
    rates = group_rates([1, 1, 0], [0, 0, 0], [0, 0, 2])
    assert np.isnan(rates.ppv).all()
    assert np.isnan([rates.fpr[0], rates.tpr[2], rates.base[1]]).all()


def test_fairlearn_counts_the_same():
    metrics = pytest.importorskip("fairlearn.metrics", reason="fairlearn is not installed")
    rng = np.random.default_rng(1)
    labels, answers, groups = (rng.integers(top, size=500) for top in (2, 2, 4))
    rates = group_rates(labels, answers, groups)
    for name, function in {
        "selection": metrics.selection_rate,
        "tpr": metrics.true_positive_rate,
        "fpr": metrics.false_positive_rate,
    }.items():
        theirs = metrics.MetricFrame(
            metrics=function, y_true=labels, y_pred=answers, sensitive_features=groups
        ).by_group
        np.testing.assert_allclose(getattr(rates, name), theirs.to_numpy(float), atol=1e-12)


@pytest.mark.parametrize(
    ("labels", "answers", "groups", "message"),
    [
        ([0, 1], [1], [0, 0], "vectors of one length"),
        ([], [], [], "vectors of one length"),
        ([0, 2], [1, 0], [0, 0], "labels must be 0 or 1"),
        ([0, 1], [1, 1.5], [0, 0], "answers must lie in"),
        ([0, 1], [1, np.nan], [0, 0], "answers must lie in"),
        ([0, 1], [1, 0], [0, -1], "groups must be integers"),
        ([0, 1], [1, 0], [0.0, 1.0], "groups must be integers"),
    ],
)
def test_bad_input_is_refused(labels, answers, groups, message):
    with pytest.raises(ValueError, match=message):
        group_rates(labels, answers, groups)
