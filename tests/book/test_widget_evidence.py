"""<trivium-evidence>: what it removes and what it says are what the run computed."""

import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

pytestmark = pytest.mark.browser

TAG = "trivium-evidence"


def test_what_it_says_is_what_the_run_computed(visit):  # noqa: F811
    page = visit(TAG)
    widget, data = element(page, TAG), data_of(page, TAG)
    slider = widget.locator(".share input")
    slider.focus()
    page.keyboard.press("Home")
    assert f"{100 * data['falls'][0, 0, 0]:.0f}%" in heard(page, TAG)
    page.keyboard.press("End")
    assert f"100% removed, the network gives it {100 * data['falls'][0, 0, -1]:.0f}%" in heard(
        page, TAG
    )
    for method, name in enumerate(data["methods"]):
        widget.get_by_role("radio", name=name, exact=True).press("Space")
        found = widget.evaluate("element => Array.from(element.fallOf(0, element.method))")
        np.testing.assert_allclose(found, data["falls"][0, method], atol=1e-6)
        assert name in heard(page, TAG)


def test_pixels_go_in_the_order_of_their_ranks(visit):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    levels = data["falls"].shape[2]
    for step in (0, 5, levels - 1):
        found = element(page, TAG).evaluate(
            "(element, step) => Array.from(element.remaining(1, 0, step))", step
        )
        gone = data["ranks"][1, 0] < step / (levels - 1) * 784
        np.testing.assert_array_equal(np.asarray(found) < 0, gone)
        kept = data["images"][1].ravel()[~gone] / 255
        np.testing.assert_allclose(np.asarray(found)[~gone], kept, atol=1e-6)


def test_another_garment_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    names = data_of(page, TAG)["names"]
    element(page, TAG).locator(".garments input").nth(2).tap(force=True)
    assert names[2] in heard(page, TAG)
