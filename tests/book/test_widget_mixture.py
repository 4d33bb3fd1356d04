"""<trivium-mixture>: shows the routes that the page exported, by hand, key and touch."""

import numpy as np
import pytest
from test_widgets import address, data_of, element, visit  # noqa: F401

pytestmark = pytest.mark.browser

TAG = "trivium-mixture"


def test_the_bars_are_the_exported_probabilities(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    chosen, probabilities = data["chosen"], data["probabilities"]
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-4)
    best = np.sort(np.argsort(-probabilities, -1)[..., :2], -1)
    np.testing.assert_array_equal(np.sort(chosen, -1), best)
    widget.evaluate("element => element.go(5)")
    widths = widget.locator("li i").evaluate_all("bars => bars.map(bar => bar.style.width)")
    shown = [float(width.rstrip("%")) / 100 for width in widths]
    np.testing.assert_allclose(shown, probabilities[-1, 5], atol=1e-3)
    used = widget.locator("li").evaluate_all("rows => rows.map(row => row.className === 'used')")
    assert set(np.flatnonzero(used)) == set(chosen[-1, 5])


def test_arrows_keys_and_marks(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    chosen = data["chosen"]
    widget.get_by_role("button", name="One character on").click()
    assert widget.evaluate("element => element.step") == 1
    slider = widget.locator("input[type=range]")
    slider.focus()
    slider.press("ArrowRight")
    assert widget.evaluate("element => element.step") == 2
    widget.locator(".letters span").nth(7).click()
    assert widget.evaluate("element => element.step") == 7
    widget.get_by_role("radio", name="Mark the characters of expert 3").click()
    marked = widget.locator(".letters .mine").count()
    assert marked == (chosen[-1] == 2).any(-1).sum()
    widget.get_by_role("radio", name=f"Block {data['blocks'][0]}", exact=True).click()
    assert widget.locator(".letters .mine").count() == (chosen[0] == 2).any(-1).sum()
    share = widget.evaluate("element => element.share(0, 2)")
    assert share == pytest.approx((chosen[0] == 2).mean())
