"""<trivium-neurons> in a real browser: its gradient is JAX's, and it can be moved and trained."""
# ruff: noqa: F811 (fixtures are asked for by the name under which they are imported)

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

pytestmark = pytest.mark.browser

TAG = "trivium-neurons"


def logit(p, x):
    """The logit at x: p holds W [2, H] row by row, b [H], v [H] and c."""
    units = (len(p) - 1) // 4
    W, b, v = p[: 2 * units].reshape(2, units), p[2 * units : 3 * units], p[3 * units : -1]
    return jax.nn.relu(x @ W + b) @ v + p[-1]


def loss(p, x, y):
    s = logit(p, x)
    return jnp.mean(jax.nn.softplus(s) - y * s)


def parameters(page):
    return np.array(element(page, TAG).evaluate("element => Array.from(element.parameters)"))


def press(page, label):
    element(page, TAG).get_by_role("button", name=label, exact=True).click()


def labels_of(page):
    """The widget's words for its buttons, whatever the language."""
    return element(page, TAG).evaluate("element => element.text")


def test_the_gradient_in_the_page_is_that_of_jax(visit):
    page = visit(TAG)
    data = data_of(page, TAG)
    random = np.random.default_rng(0)
    for points, labels in zip(data["points"], data["labels"], strict=True):
        for scale in (0.3, 1.0, 3.0):
            p = (scale * random.normal(size=len(data["start"]))).astype(np.float32)
            found = element(page, TAG).evaluate(
                """(element, [p, points, labels]) => {
                  const { loss, right, gradient } = element.gradient(p, { points, labels });
                  return { loss, right, gradient: Array.from(gradient) };
                }""",
                [p.tolist(), points.ravel().tolist(), labels.tolist()],
            )
            y = labels.astype(np.float32)
            value, gradient = jax.value_and_grad(loss)(jnp.asarray(p), points, y)
            assert found["loss"] == pytest.approx(float(value), rel=1e-4, abs=1e-6)
            np.testing.assert_allclose(found["gradient"], gradient, rtol=1e-3, atol=1e-5)
            assert found["right"] == int(((logit(p, points) > 0) == (labels > 0)).sum())


def test_the_buttons_take_the_steps_they_say(visit):
    page = visit(TAG)
    data, words = data_of(page, TAG), labels_of(page)
    p = jnp.asarray(data["start"])
    np.testing.assert_allclose(parameters(page), p, atol=1e-6)
    y = data["labels"][0].astype(np.float32)
    gradient = jax.jit(jax.grad(loss))
    for label, steps in ((words["one"], 1), (words["ten"], 10)):
        press(page, label)
        for _ in range(steps):
            p = p - 0.3 * gradient(p, data["points"][0], y)
        np.testing.assert_allclose(parameters(page), p, atol=1e-3)
    assert "11" in heard(page, TAG)
    press(page, words["reset"])
    np.testing.assert_allclose(parameters(page), data["start"], atol=1e-6)


def test_descent_solves_the_first_set_from_the_first_start(visit):
    page = visit(TAG)
    words, count = labels_of(page), len(data_of(page, TAG)["labels"][0])
    for _ in range(10):
        press(page, words["hundred"])
    now = element(page, TAG).evaluate("element => [element.now.right, element.losses]")
    assert now[0] >= 0.95 * count
    assert now[1][-1] < 0.2 < now[1][0]
    assert len(now[1]) == 1001


def test_the_boundary_is_where_the_odds_are_even(visit):
    page = visit(TAG)
    press(page, labels_of(page)["hundred"])
    path = element(page, TAG).locator(".edge").get_attribute("d")
    places = np.array(re.findall(r"[\d.]+", path), np.float64).reshape(-1, 2)
    assert len(places) > 20
    points = np.stack([places[:, 0] / 75 - 2, 2 - places[:, 1] / 75], 1)
    values = np.asarray(logit(jnp.asarray(parameters(page), jnp.float32), points))
    # A pixel holds 1/75 of a unit; the sheet is nowhere steeper than this.
    p = parameters(page)
    steepest = sum(np.hypot(p[j], p[3 + j]) * abs(p[9 + j]) for j in range(3))
    assert np.abs(values).max() < steepest * 2 / 75


def test_neurons_by_keyboard(visit):
    page = visit(TAG)
    widget = element(page, TAG)
    before, words = parameters(page), labels_of(page)
    slider = widget.get_by_role("slider", name=words["bias"], exact=True)
    crease = widget.locator(".crease").nth(0)
    drawn, said = crease.get_attribute("d"), heard(page, TAG)
    slider.focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    after = parameters(page)
    assert after[6] > before[6]
    np.testing.assert_allclose(np.delete(after, 6), np.delete(before, 6), atol=1e-9)
    assert crease.get_attribute("d") != drawn
    assert heard(page, TAG) != said

    widget.locator(".tune [role=radiogroup] input").first.focus()
    page.keyboard.press("ArrowRight")
    assert widget.evaluate("element => element.neuron") == 1
    assert "on" in widget.locator(".crease").nth(1).get_attribute("class").split()
    widget.get_by_role("button", name=words["one"], exact=True).focus()
    page.keyboard.press("Enter")
    assert not np.allclose(parameters(page), after)


def test_a_crease_follows_the_pointer(visit):
    page = visit(TAG)
    widget = element(page, TAG)
    before = parameters(page)
    plane = widget.locator(".plane svg")
    plane.scroll_into_view_if_needed()
    box = plane.bounding_box()
    # A place where the second crease's handle is on top.
    at = widget.evaluate(
        """element => {
          const path = element.creases[1].hit, root = element.shadowRoot;
          const box = element.overlay.getBoundingClientRect();
          const length = path.getTotalLength();
          for (let t = 0.05; t < 1; t += 0.05) {
            const { x, y } = path.getPointAtLength(t * length);
            const hit = root.elementFromPoint(box.left + x, box.top + y);
            if (hit === path) return [x, y];
          }
        }"""
    )
    page.mouse.move(box["x"] + at[0], box["y"] + at[1])
    page.mouse.down()
    goal = (box["x"] + 150, box["y"] + 120)
    page.mouse.move(*goal)
    page.mouse.up()
    after = parameters(page)
    np.testing.assert_allclose(np.delete(after, 7), np.delete(before, 7), atol=1e-9)
    x, y = 150 / 75 - 2, 2 - 120 / 75
    assert abs(x * after[1] + y * after[4] + after[7]) < 0.05 * np.hypot(after[1], after[4])
    assert widget.evaluate("element => element.neuron") == 1


def test_neurons_by_touch(visit):
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    words = labels_of(page)
    before = parameters(page)
    element(page, TAG).get_by_role("button", name=words["one"], exact=True).tap()
    assert not np.allclose(parameters(page), before)
    element(page, TAG).get_by_role("radio", name=words["ring"]).tap(force=True)
    assert element(page, TAG).evaluate("element => element.set") == 1


def test_running_stops_when_asked(visit):
    page = visit(TAG)
    words = labels_of(page)
    page.clock.install()
    length = "element => element.losses.length"
    press(page, words["play"])
    page.clock.run_for(700)
    press(page, words["pause"])
    steps = element(page, TAG).evaluate(length)
    assert steps > 20
    page.clock.run_for(700)
    assert element(page, TAG).evaluate(length) == steps


def test_motion_is_left_to_the_reader_who_wants_none(visit):
    page = visit(TAG, reduced_motion="reduce")
    assert not element(page, TAG).locator(".play").is_visible()
