"""<trivium-thresholds>: its rates are the package's, and it can be moved by hand, key and touch."""

import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit

from trivium.fairness import group_rates

__all__ = ["address", "visit"]  # fixtures

pytestmark = pytest.mark.browser

TAG = "trivium-thresholds"


def expected(counts, cuts):
    """The rates by the package, from a person for each count."""
    group, label, place = (
        np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices(counts.shape)
    )
    answers = place >= np.asarray(cuts)[group]
    return group_rates(label, answers, group), (answers == label).mean()


def test_the_rates_are_those_of_the_package(visit):
    page = visit(TAG)
    widget = element(page, TAG)
    counts = data_of(page, TAG)["counts"]
    for cuts in ([50, 50], [20, 70], [1, 99], [63, 8]):
        found = widget.evaluate("(element, cuts) => element.rates(cuts)", cuts)
        rates, accuracy = expected(counts, cuts)
        assert found["accuracy"] == pytest.approx(accuracy)
        for group, each in enumerate(found["groups"]):
            for name, value in each.items():
                assert value == pytest.approx(getattr(rates, name)[group], nan_ok=True), name


def test_what_is_shown_follows_the_sliders_by_keyboard(visit):
    page = visit(TAG)
    widget = element(page, TAG)
    counts = data_of(page, TAG)["counts"]
    before = heard(page, TAG)
    for slider, steps in zip(widget.locator("input[type=range]").all(), (3, 5), strict=True):
        slider.focus()
        for _ in range(steps):
            page.keyboard.press("ArrowLeft")
    rates, accuracy = expected(counts, [47, 45])
    cells = widget.locator("tbody tr").nth(1).locator("td").all_inner_texts()
    assert cells[:2] == [f"{rate:.3f}" for rate in rates.tpr]
    assert f"{accuracy:.3f}" in heard(page, TAG) != before


def test_with_no_yes_there_is_no_precision(visit):
    page = visit(TAG)
    widget = element(page, TAG)
    widget.locator("input[type=range]").first.focus()
    page.keyboard.press("End")
    assert widget.locator("tbody tr").nth(3).locator("td").first.inner_text() == "none"


def test_presets_by_touch_do_what_they_promise(visit):
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    for name, rate in (("Equal selection", "selection"), ("Equal opportunity", "tpr")):
        widget.get_by_role("button", name=name).tap()
        groups = widget.evaluate("element => element.rates(element.cuts).groups")
        assert abs(groups[0][rate] - groups[1][rate]) < 0.03
    widget.get_by_role("button", name="One threshold").tap()
    assert widget.evaluate("element => element.cuts") == [50, 50]
