"""The widget of the three families: the package's numbers, and what each family joins."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

from trivium.kernels import attention, conv2d, rnn

pytestmark = pytest.mark.browser

TAG = "trivium-families"
FAMILIES = ("convolution", "recurrence", "attention")


def layer(data, family, x, i):
    """One layer of one family, by the package: x [T, D] -> [T, D]."""
    if family == "convolution":
        return jnp.tanh(conv2d(x[None, None], data["kernel"][i][None], data["bias"][i])[0, 0])
    if family == "recurrence":
        return rnn(x[None], data["w_ih"][i], data["w_hh"][i], data["b"][i])[0][0]
    q, k, v = ((x @ data[name][i])[None, :, None] for name in ("w_q", "w_k", "w_v"))
    return x + attention(q, k, v)[0, :, 0]


def stack(data, family, x, layers):
    for i in range(layers):
        x = layer(data, family, x, i)
    return x


def test_the_states_in_the_page_are_those_of_the_package(visit):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    layers, places = len(data["kernel"]), len(data["tokens"])
    tokens = np.random.default_rng(0).integers(0, len(data["symbols"]), places)
    states = json.loads(
        element(page, TAG).evaluate(
            """(element, tokens) => JSON.stringify(Object.fromEntries(Object.entries(
              element.forward(tokens)).map(([name, values]) => [name, Array.from(values)])))""",
            tokens.tolist(),
        )
    )
    for family in FAMILIES:
        found = np.reshape(states[family], (layers + 1, places, -1))
        x = jnp.asarray(data["embedding"][tokens])
        for i in range(layers + 1):
            np.testing.assert_allclose(found[i], x, atol=2e-5)
            if i < layers:
                x = layer(data, family, x, i)


def test_what_is_read_is_where_the_derivative_is_not_zero(visit):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    places = len(data["tokens"])
    x = jnp.asarray(data["embedding"][data["tokens"]])
    for family in FAMILIES:
        for layers in (1, 3):
            found = element(page, TAG).evaluate(
                """(element, [family, layers, T]) => Array.from({ length: T }, (_, t) =>
                  element.reads(family, layers, t).slice(0, T))""",
                [family, layers, places],
            )
            jacobian = jax.jacobian(lambda x, f=family, n=layers: stack(data, f, x, n))(x)
            depends = np.abs(jacobian).sum(axis=(1, 3)) > 0
            np.testing.assert_array_equal(np.array(found) >= 0, depends)


def test_paths_and_schedules(visit):  # noqa: F811
    widget = element(visit(TAG), TAG)
    longest = "(element, family) => Math.max(...element.reads(family, 2, 9).slice(0, element.T))"
    assert [widget.evaluate(longest, family) for family in FAMILIES] == [2, 2 + 9, 2]
    last = "(element, family) => element.ready(family, 3, element.T - 1) - element.T"
    places = widget.evaluate("element => element.T")
    assert [widget.evaluate(last, family) + places for family in FAMILIES] == [3, 2 + places, 3]


def test_modes_layers_and_places_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    places = widget.evaluate("element => element.T")
    slider = widget.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("Home")
    words = heard(page, TAG)
    assert "Output 1:" in words
    assert "recurrence 1," in words
    assert f"attention {places} of" in words
    page.keyboard.press("End")
    assert f"recurrence {places}," in heard(page, TAG)

    modes, layers = (widget.locator("[role=radiogroup]").nth(i).locator("input") for i in (0, 1))
    layers.nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert widget.evaluate("element => element.layers") == 3
    assert "convolution reads 4," in heard(page, TAG)

    modes.nth(0).focus()
    page.keyboard.press("ArrowRight")
    slider.focus()
    page.keyboard.press("End")
    words = heard(page, TAG)
    assert f"Input {places} became" in words
    assert "convolution changed 4," in words
    assert "recurrence 1," in words
    button = widget.locator("button.edit")
    button.focus()
    page.keyboard.press("Enter")
    assert heard(page, TAG) != words, "another symbol"

    modes.nth(1).focus()
    page.keyboard.press("ArrowRight")
    assert not button.is_visible()
    slider.focus()
    page.keyboard.press("Home")
    words = heard(page, TAG)
    total = 3 * places
    assert f"convolution {places}, recurrence 1, attention {places} of {total}" in words
    page.keyboard.press("End")
    assert f"recurrence {total}, attention {total} of {total}" in heard(page, TAG)
    assert slider.input_value() == str(places + 2)


def test_a_cell_can_be_touched(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    places = widget.evaluate("element => element.T")
    canvas = widget.locator("canvas").nth(1)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    canvas.tap(position={"x": box["width"] * 2.5 / places, "y": 10})
    assert widget.locator("input[type=range]").input_value() == "3"
    assert "recurrence 3," in heard(page, TAG)
