"""The activation widget: the package's numbers, in the page, by keyboard and slider."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit

__all__ = ["address", "visit"]  # fixtures

pytestmark = pytest.mark.browser

TAG = "trivium-activations"
ACTIVATIONS = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky": lambda z: jax.nn.leaky_relu(z, negative_slope=0.1),
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}


def expected(data, activation, gain):
    """Spread above each layer and size of the gradient below, from JAX's own derivative.

    In float64, as the page computes: ten layers of sigmoid leave less than float32 can tell apart.
    """

    def root_mean_square(x):
        return float(jnp.sqrt((x**2).mean()))

    def spread_of(x):
        return float(jnp.sqrt(jnp.var(x, axis=0).mean()))

    with jax.enable_x64(True):
        stack, x, gradient = (
            jnp.asarray(data[name], jnp.float64) for name in ("stack", "signal", "gradient")
        )
        spread, backward = [spread_of(x)], []
        for weights in stack:
            x, pull = jax.vjp(lambda x, w=weights: activation(gain * x @ w), x)
            spread.append(spread_of(x))
            backward.append(pull)
        size = [root_mean_square(gradient)]
        for pull in reversed(backward):
            (gradient,) = pull(gradient)
            size.insert(0, root_mean_square(gradient))
    return spread, size


def test_signal_and_gradient_are_those_of_jax(visit):
    page = visit(TAG)
    data = data_of(page, TAG)
    for kind, activation in ACTIVATIONS.items():
        for gain in (0.5, 1.0, 1.4, 2.5):
            result = json.loads(
                element(page, TAG).evaluate(
                    """(element, [kind, gain]) => {
                      const { spread, size } = element.forward(kind, gain);
                      return JSON.stringify([spread, size]);
                    }""",
                    [kind, gain],
                )
            )
            for ours, theirs in zip(expected(data, activation, gain), result, strict=True):
                np.testing.assert_allclose(theirs, ours, rtol=1e-4, err_msg=f"{kind} {gain}")


def test_every_activation_can_be_chosen_by_keyboard(visit):
    page = visit(TAG)
    widget = element(page, TAG)
    radios = widget.locator(".kinds input")
    assert radios.count() == len(ACTIVATIONS)
    radios.first.focus()
    told = {heard(page, TAG)}
    for _ in range(len(ACTIVATIONS) - 1):
        page.keyboard.press("ArrowRight")
        told.add(heard(page, TAG))
    assert len(told) == len(ACTIVATIONS)
    assert widget.evaluate("element => element.kind") == "silu"


def test_the_sliders_move_point_and_scale(visit):
    page = visit(TAG)
    widget = element(page, TAG)
    point, scale = widget.locator("input[type=range]").all()
    before = heard(page, TAG)
    scale.focus()
    page.keyboard.press("End")
    assert widget.evaluate("element => element.gain") == 3
    assert heard(page, TAG) != before
    point.focus()
    page.keyboard.press("Home")
    assert widget.evaluate("element => element.z") == -5
    value = widget.locator(".function .value").inner_text()
    assert "0.01" in value  # sigmoid(-5) = 0.0067, rounded
    assert point.get_attribute("aria-valuetext") == value
