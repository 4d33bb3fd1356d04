"""<trivium-depth> in a browser: its numbers are those of JAX, its knobs work without a mouse."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_widgets import address, element, heard, visit  # noqa: F401 (fixtures)

from trivium.kernels import layer_norm

pytestmark = pytest.mark.browser

TAG = "trivium-depth"
UNITS, INPUTS, DEEPEST, SEED = 64, 48, 50, 1
PHI = {"relu": jax.nn.relu, "tanh": jnp.tanh, "linear": lambda z: z}


def uniform(seed, count):
    """The generator of the page, mulberry32, all at once."""
    state = (seed + 0x6D2B79F5 * np.arange(1, count + 1, dtype=np.uint64)).astype(np.uint32)
    t = (state ^ (state >> np.uint32(15))) * (state | np.uint32(1))
    t ^= t + (t ^ (t >> np.uint32(7))) * (t | np.uint32(61))
    return (t ^ (t >> np.uint32(14))) / 2.0**32


def normal(seed, count):
    u, v = uniform(seed, count).reshape(-1, 2).T
    radius = np.sqrt(-2 * np.log(1 - u))
    return np.stack([radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)], 1).ravel()


def expected(depth, sigma, activation, norm, residual):
    """Root mean squares of signal and gradient, and cosines, by JAX."""
    batch = INPUTS * UNITS
    values = normal(SEED, 2 * batch + DEEPEST * UNITS**2).astype(np.float32)
    z, delta = values[: 2 * batch].reshape(2, INPUTS, UNITS)
    weights = values[2 * batch :].reshape(DEEPEST, UNITS, UNITS)[:depth] * sigma / np.sqrt(UNITS)
    ones, zeros = jnp.ones(UNITS), jnp.zeros(UNITS)

    def forward(bumps):
        layers = [jnp.asarray(z) + bumps[0]]
        for w, bump in zip(weights, bumps[1:], strict=True):
            ready = layer_norm(layers[-1], ones, zeros, epsilon=1e-10) if norm else layers[-1]
            after = PHI[activation](ready) @ w + bump
            layers.append(layers[-1] + after if residual else after)
        return layers[-1], jnp.stack(layers)

    _, pull, layers = jax.vjp(forward, jnp.zeros((depth + 1, INPUTS, UNITS)), has_aux=True)

    def size(a):
        return np.sqrt((np.asarray(a, np.float64) ** 2).mean((1, 2)))

    unit = layers / jnp.linalg.norm(layers, axis=-1, keepdims=True)
    cosines = (unit[:, 1:] * unit[:, :-1]).sum(-1).mean(1)
    return size(layers), size(pull(jnp.asarray(delta))[0]), np.asarray(cosines)


@pytest.mark.parametrize(
    ("depth", "sigma", "activation", "norm", "residual"),
    [
        (12, 1.0, "relu", False, False),
        (12, 2.5, "tanh", False, False),
        (8, 0.7, "linear", False, False),
        (12, 0.5, "relu", True, False),
        (10, 1.4, "relu", False, True),
        (12, 1.4, "relu", True, True),
        (10, 3.0, "tanh", True, True),
    ],
)
def test_the_stack_in_the_page_is_the_one_of_jax(visit, depth, sigma, activation, norm, residual):  # noqa: F811
    settings = {
        "depth": depth,
        "sigma": sigma,
        "activation": activation,
        "norm": norm,
        "residual": residual,
    }
    page = visit(TAG)
    found = element(page, TAG).evaluate(
        """(element, settings) => {
          const { sizes, slopes, cosines } = element.forward(settings);
          return JSON.stringify([sizes, slopes, cosines]);
        }""",
        settings,
    )
    sizes, slopes, cosines = json.loads(found)
    for ours, theirs in zip((sizes, slopes), expected(**settings)[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3)
    np.testing.assert_allclose(cosines, expected(**settings)[2], atol=2e-3)


def test_depth_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    at_he = heard(page, TAG)
    widget.locator(".slide.depth input").focus()
    page.keyboard.press("End")
    assert widget.evaluate("element => element.settings.depth") == DEEPEST
    assert heard(page, TAG) != at_he
    widget.locator("button.glorot").focus()
    page.keyboard.press("Enter")
    assert widget.evaluate("element => element.settings.sigma") == 1
    vanished = widget.evaluate("element => element.text.vanishes")
    assert heard(page, TAG).count(vanished) == 2

    # Layer norm brings the signal back, the residual path the gradient and the difference.
    groups = widget.locator("[role=radiogroup]")
    groups.nth(1).locator("input:checked").focus()
    page.keyboard.press("ArrowRight")
    assert widget.evaluate("element => element.settings.norm") is True
    assert vanished not in heard(page, TAG)
    groups.nth(2).locator("input:checked").focus()
    page.keyboard.press("ArrowRight")
    assert widget.evaluate("element => element.settings.residual") is True
    assert vanished not in heard(page, TAG)


def test_new_weights_change_the_numbers_a_little(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    sizes = "element => element.result.sizes.at(-1)"
    before = widget.evaluate(sizes)
    widget.locator("button.again").click()
    after = widget.evaluate(sizes)
    assert after != before
    assert 0.02 < after / before < 50


def test_the_stack_follows_a_finger(visit):  # noqa: F811
    page = visit(TAG)
    milliseconds = element(page, TAG).evaluate(
        """element => {
          const times = Array.from({ length: 7 }, () => {
            const start = performance.now();
            element.forward({ ...element.settings, depth: 50 });
            return performance.now() - start;
          });
          return times.sort((a, b) => a - b)[3];
        }"""
    )
    assert milliseconds < 250
