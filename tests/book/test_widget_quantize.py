"""<trivium-quantize>: rounds as the package does, and says what the page measured, for everyone."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

from trivium.kernels import dequantize, quantize

pytestmark = pytest.mark.browser

TAG = "trivium-quantize"


def test_it_rounds_as_the_package_does(visit):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    weights = data["weights"]
    for group in data["groups"]:
        options = {"group": group} if group else {"per_channel": False}
        for bits in data["bits"]:
            found = element(page, TAG).evaluate(
                """(element, [bits, group]) => {
                  const { values, error } = element.rounded(bits, group);
                  return JSON.stringify([Array.from(values), error]);
                }""",
                [bits, group],
            )
            values, error = json.loads(found)
            quantized = quantize(jnp.asarray(weights), bits=bits, **options)
            expected = np.asarray(dequantize(quantized)).ravel()
            # A weight half way between two levels may go either way by a last digit.
            off = ~np.isclose(values, expected, atol=1e-5)
            assert off.mean() < 0.002, (bits, group)
            relative = np.linalg.norm(expected - weights.ravel()) / np.linalg.norm(weights)
            assert error == pytest.approx(relative, rel=0.01)


def test_fewer_bits_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    before = heard(page, TAG)
    place = data["bits"].index(4)
    widget.locator(".bits input").nth(place).focus()
    page.keyboard.press("ArrowRight")
    after = heard(page, TAG)
    assert after != before
    assert after.startswith(f"{data['bits'][place + 1]} bits")
    assert f"{100 * data['accuracy'][0][place + 1]:.1f}%" in after
    assert f"{100 * data['base']:.1f}%" in after


def test_another_group_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    widget.locator(".sharing label").last.tap()
    said = heard(page, TAG)
    assert f"{data['groups'][-1]} of a column" in said
    assert f"{100 * data['accuracy'][-1][data['bits'].index(4)]:.1f}%" in said
    assert widget.evaluate("element => element.now.error") < widget.evaluate(
        "element => element.rounded(element.bits[element.bit], 0).error"
    )
