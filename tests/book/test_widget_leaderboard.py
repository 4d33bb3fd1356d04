"""<trivium-leaderboard>: scores are those of the rows, and the climb is one on the public part."""

import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

pytestmark = pytest.mark.browser

TAG = "trivium-leaderboard"
SCORES = "element => element.history.map(each => [each.public, each.private])"


def test_scores_are_those_of_the_rows(visit):  # noqa: F811
    page = visit(TAG)
    widget, data = element(page, TAG), data_of(page, TAG)
    widget.evaluate("element => element.submit(120)")
    trace = np.array(widget.evaluate(SCORES))
    swapped = np.array(widget.evaluate("element => Array.from(element.swapped)"), bool)
    public = np.zeros(len(data["first"]), bool)
    public[data["shuffled"][: data["publics"][0]]] = True
    right = np.where(swapped, data["second"], data["first"])
    np.testing.assert_allclose(trace[-1], [right[public].mean(), right[~public].mean()])
    np.testing.assert_allclose(
        trace[0], [data["first"][public].mean(), data["first"][~public].mean()]
    )
    assert not swapped[np.setdiff1d(np.arange(len(swapped)), data["order"])].any()
    # Kept only where the public score rises.
    assert (np.diff(trace[:, 0]) >= 0).all()
    moved = np.diff(trace[:, 0]) > 0
    assert (np.diff(trace[:, 1])[~moved] == 0).all()


def test_the_scores_part_ways(visit):  # noqa: F811
    page = visit(TAG)
    widget, data = element(page, TAG), data_of(page, TAG)
    ends = []
    for index in range(len(data["publics"])):
        widget.locator(".parts input").nth(index).click()
        widget.evaluate("element => element.submit(500)")
        trace = np.array(widget.evaluate(SCORES))
        assert len(trace) == 501
        assert trace[-1, 0] > trace[0, 0] + 0.01
        assert trace[-1, 1] < trace[0, 1]
        ends.append(trace[-1, 0] - trace[0, 0])
    assert ends[0] > ends[-1]


def test_by_keyboard_and_the_private_score_on_demand(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    before = heard(page, TAG)
    buttons = widget.locator("button")
    buttons.nth(2).focus()
    page.keyboard.press("Enter")
    assert heard(page, TAG) != before
    assert widget.evaluate("element => element.history.length") == 101
    private = widget.evaluate("element => element.number(element.history.at(-1).private, 3)")
    assert private not in heard(page, TAG)
    assert widget.locator(".line.private").count() == 0
    widget.locator("input[type=checkbox]").focus()
    page.keyboard.press("Space")
    assert private in heard(page, TAG)
    assert widget.locator(".line.private").count() == 1
    buttons.nth(3).focus()
    page.keyboard.press("Enter")
    assert widget.evaluate("element => element.history.length") == 1


def test_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    widget.locator("button").nth(1).tap()
    assert widget.evaluate("element => element.history.length") == 11
    widget.locator(".shown").tap()
    assert widget.locator(".line.private").count() == 1
    widget.locator(".parts input").nth(2).tap()
    assert widget.evaluate("element => element.history.length") == 1
