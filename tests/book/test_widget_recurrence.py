"""The two cells in the page: the states and the derivatives that the package computes."""

import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit  # noqa: F401 (two are fixtures)

from trivium.kernels import gru, lstm, rnn

pytestmark = pytest.mark.browser

TAG = "trivium-recurrence"
KERNELS = {"rnn": rnn, "lstm": lstm, "gru": gru}


@partial(jax.jit, static_argnames="kind")
def by_package(kind, cell, sequence, gain, bias):
    """States [T, H], and the length of the derivative of each state by each input, [T, T]."""
    hidden = cell["w_hh"].shape[0]
    b = cell["b"]
    if kind != "rnn":
        b = b.at[hidden : 2 * hidden].add(bias)

    def states(x):
        return KERNELS[kind](x[None, :, None], cell["w_ih"], gain * cell["w_hh"], b)[0][0]

    return states(sequence), jnp.linalg.norm(jax.jacrev(states)(sequence), axis=1)


@pytest.mark.parametrize(
    ("kind", "gain", "bias"),
    [("rnn", 1.0, 0.0), ("rnn", 1.5, 0.0), ("lstm", 1.0, 4.0), ("gru", 1.0, -1.0), ("gru", 1.0, 3)],
)
def test_states_and_derivatives_are_those_of_the_package(visit, kind, gain, bias):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    for sequence in data["sequences"]:
        values = sequence["values"]
        result = json.loads(
            element(page, TAG).evaluate(
                """(element, [kind, values, gain, bias]) => {
                  const { h, reach } = element.run(kind, values, gain, bias);
                  return JSON.stringify({h: Array.from(h), reach: reach.map(r => Array.from(r))});
                }""",
                [kind, values.tolist(), gain, bias],
            )
        )
        cell = {name: jnp.asarray(array) for name, array in data["cells"][kind].items()}
        states, reach = by_package(kind, cell, jnp.asarray(values), gain, float(bias))
        np.testing.assert_allclose(np.reshape(result["h"], states.shape), states, atol=1e-4)
        for t, row in enumerate(result["reach"]):
            assert len(row) == t + 1
            np.testing.assert_allclose(row, reach[t, : t + 1], rtol=1e-2, atol=1e-4)


def test_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    steps = len(data_of(page, TAG)["sequences"][0]["values"])
    slider = widget.locator(".step input")
    assert slider.input_value() == str(steps)
    at_end = heard(page, TAG)
    slider.focus()
    page.keyboard.press("Home")
    assert slider.input_value() == "1"
    assert heard(page, TAG) != at_end
    page.keyboard.press("ArrowRight")
    assert re.search(r"\b2\b", heard(page, TAG))
    page.keyboard.press("End")
    assert heard(page, TAG) == at_end

    widget.locator(".simple input").focus()
    page.keyboard.press("Home")
    shut = heard(page, TAG)
    assert "0.00" in shut, "without a recurrent weight nothing early is felt"
    widget.locator(".gated input").focus()
    page.keyboard.press("Home")
    assert heard(page, TAG) != shut

    widget.locator("[role=radiogroup] input:checked").focus()
    page.keyboard.press("ArrowRight")
    assert widget.evaluate("element => element.kind") == "gru"


def test_a_longer_memory_reaches_further(visit):  # noqa: F811
    page = visit(TAG)
    first = element(page, TAG).evaluate(
        """element => ["lstm", "gru"].map(kind => [0, 2, 4].map(bias =>
          element.run(kind, element.sequences[1], 1, bias).reach.at(-1)[0]))"""
    )
    assert (np.diff(first) > 0).all()


def test_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    before = int(widget.locator(".step input").input_value())
    widget.locator(".step button").first.tap()
    assert int(widget.locator(".step input").input_value()) == before - 1
    widget.locator("select").select_option("1")
    assert widget.evaluate("element => element.steps") == 40
