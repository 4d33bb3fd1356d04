"""The fit in the page: its weights and its errors are those of a singular value decomposition."""

import json

import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit  # noqa: F401 (two are fixtures)

pytestmark = pytest.mark.browser

TAG = "trivium-descent"


def by_numpy(data, width, chosen, penalty):
    """Weights [width], and the errors on the places that are fitted and on the others."""
    middles, inclines = (
        np.asarray(data[k][chosen, :width], np.float64) for k in ("middles", "inclines")
    )
    x, y = (np.asarray(data[k], np.float64) for k in ("positions", "values"))
    phi = np.tanh(inclines * (x[:, None] - middles)) / np.sqrt(width)
    caught = data["caught"]
    u, s, vt = np.linalg.svd(phi[caught], full_matrices=False)
    keep = s > 1e-9 * s[0]
    weights = vt[keep].T @ (s[keep] / (s[keep] ** 2 + penalty) * (u[:, keep].T @ y[caught]))
    wrong = phi @ weights - y
    return weights, [np.sqrt((e**2).mean()) for e in (wrong[caught], np.delete(wrong, caught))]


@pytest.mark.parametrize("penalty", [0.0, 1e-4])
def test_the_fit_is_the_smallest(visit, penalty):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    widths = [int(width) for width in data["widths"]]
    for chosen in (0, 3):
        answers = element(page, TAG).evaluate(
            """(element, [chosen, penalty]) => JSON.stringify(element.widths.map(width => {
              const { weights, train, test, length } = element.solve(width, chosen, penalty);
              return [Array.from(weights), train, test, length];
            }))""",
            [chosen, penalty],
        )
        for width, (weights, train, test, length) in zip(widths, json.loads(answers), strict=True):
            expected, errors = by_numpy(data, width, chosen, penalty)
            scale = np.linalg.norm(expected)
            np.testing.assert_allclose(weights, expected, atol=1e-5 * scale)
            np.testing.assert_allclose([train, test], errors, rtol=1e-4, atol=1e-8 * scale)
            np.testing.assert_allclose(length, scale, rtol=1e-5)


def test_the_error_peaks_where_features_equal_points(visit):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    points = len(data["caught"])
    errors = np.array(
        element(page, TAG).evaluate("element => element.solutions.map(each => each.test)")
    )
    widths = np.array(data["widths"])
    top = widths[errors.argmax()]
    assert points / 2 <= top <= 2 * points
    assert errors[-1] < errors.max() / 3


def test_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    slider, penalty = (widget.locator("input[type=range]").nth(i) for i in (0, 1))
    before = heard(page, TAG)
    slider.focus()
    page.keyboard.press("End")
    most = heard(page, TAG)
    assert most != before
    assert most.startswith(str(data_of(page, TAG)["widths"][-1]))
    page.keyboard.press("Home")
    assert heard(page, TAG).startswith("1 ")
    page.keyboard.press("ArrowRight")
    assert heard(page, TAG).startswith("2 ")
    page.keyboard.press("End")
    penalty.focus()
    page.keyboard.press("End")
    assert heard(page, TAG) != most
    page.keyboard.press("Home")
    assert heard(page, TAG) == most
    widget.get_by_role("button").last.focus()
    page.keyboard.press("Enter")
    assert heard(page, TAG) != most, "other features, another fit"


def test_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    slider = widget.locator("input[type=range]").first
    before = int(slider.input_value())
    widget.get_by_role("button").first.tap()
    assert int(slider.input_value()) == before - 1
    widget.get_by_role("button").nth(1).tap()
    assert int(slider.input_value()) == before
