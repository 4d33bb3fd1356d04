"""<trivium-lookup>: its numbers are the kernel's, and it can be moved by hand, key and touch."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

from trivium.kernels import attention

pytestmark = pytest.mark.browser

TAG = "trivium-lookup"


def kernel(queries, keys, values, *, scale, causal):
    """The means by the package: values as vectors of two, the second 0."""
    q, k = (jnp.asarray(x, jnp.float32)[None, :, None] for x in (queries, keys))
    v = jnp.stack([jnp.asarray(values, jnp.float32), jnp.zeros(len(values))], -1)[None, :, None]
    return np.asarray(attention(q, k, v, scale=scale, causal=causal))[0, :, 0, 0]


def test_the_means_are_those_of_the_kernel(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    rng = np.random.default_rng(0)
    for causal in (False, True):
        for scale in (0.0625, 0.7071, 4.0, 16.0):
            queries, keys = rng.normal(size=(2, 6, 2)).round(3)
            values = rng.normal(size=6).round(3)
            given = {"queries": queries.tolist(), "keys": keys.tolist(), "values": values.tolist()}
            given |= {"scale": scale, "causal": causal}
            found = widget.evaluate(
                """(element, given) => {
                  const { scores, weights, means } = element.attend(given);
                  const last = scores.map(row => element.online(row, given.values).at(-1));
                  return { weights, means, online: last.map(state => state.mean) };
                }""",
                given,
            )
            expected = kernel(queries, keys, values, scale=scale, causal=causal)
            np.testing.assert_allclose(found["means"], expected, atol=1e-4)
            np.testing.assert_allclose(found["online"], expected, atol=1e-4)
            np.testing.assert_allclose(np.sum(found["weights"], axis=1), 1, atol=1e-9)
            if causal:
                assert not np.triu(found["weights"], 1).any()


def test_what_is_on_show_is_what_the_kernel_computes(visit):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    given = [np.asarray(data[name]) for name in ("queries", "keys", "values")]
    means = kernel(*given, scale=data["scale"], causal=False)
    assert f"{means[0]:.2f}" in heard(page, TAG)
    element(page, TAG).locator(".query input").nth(2).check(force=True)
    assert f"{means[2]:.2f}" in heard(page, TAG)
    element(page, TAG).get_by_role("radio", name="causal").check(force=True)
    causal = kernel(*given, scale=data["scale"], causal=True)
    assert f"{causal[2]:.2f}" in heard(page, TAG)
    assert element(page, TAG).locator("tr.masked").count() == 2


def test_a_number_can_be_typed(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    value = widget.get_by_label("Value 2")
    value.fill("40")
    values = np.asarray(data["values"]).copy()
    values[1] = 40
    means = kernel(data["queries"], data["keys"], values, scale=data["scale"], causal=False)
    assert f"{means[0]:.2f}" in heard(page, TAG)
    # Out of range is brought back, and nonsense is undone when the field is left.
    value.fill("1000")
    value.blur()
    assert value.input_value() == "99"
    widget.get_by_label("Key 1, x").fill("")
    widget.get_by_label("Key 1, x").blur()
    assert widget.get_by_label("Key 1, x").input_value() == f"{data['keys'][0][0]:g}"
    widget.locator(".reset").click()
    assert value.input_value() == f"{data['values'][1]:g}"


def test_the_scale_sharpens(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    slider = widget.locator(".scale input")
    weights = "element => element.result.weights[0]"
    slider.focus()
    page.keyboard.press("Home")
    assert np.ptp(widget.evaluate(weights)) < 0.2
    page.keyboard.press("End")
    assert max(widget.evaluate(weights)) > 0.99
    assert json.loads(widget.evaluate("element => JSON.stringify(element.scale)")) == 16


def test_the_arrow_can_be_dragged(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    plane = widget.locator(".plane svg")
    plane.scroll_into_view_if_needed()
    box = plane.bounding_box()

    def at(x, y):
        return box["x"] + box["width"] * (x / 6 + 0.5), box["y"] + box["height"] * (0.5 - y / 6)

    start = data_of(page, TAG)["queries"][0].tolist()
    page.mouse.move(*at(*start))
    page.mouse.down()
    page.mouse.move(*at(-2, 1), steps=4)
    page.mouse.up()
    np.testing.assert_allclose(widget.evaluate("element => element.queries[0]"), [-2, 1], atol=0.05)
    page.mouse.move(*at(2, 2))
    np.testing.assert_allclose(widget.evaluate("element => element.queries[0]"), [-2, 1], atol=0.05)
    key = data_of(page, TAG)["keys"][3].tolist()
    page.mouse.move(*at(*key))
    page.mouse.down()
    page.mouse.move(*at(0.5, -2), steps=4)
    page.mouse.up()
    np.testing.assert_allclose(widget.evaluate("element => element.keys[3]"), [0.5, -2], atol=0.05)


def test_online_softmax_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    slider = widget.locator(".online input")
    slider.focus()
    page.keyboard.press("Home")
    assert slider.input_value() == "0"
    scores = data["scale"] * data["keys"] @ data["queries"][0]
    values = np.asarray(data["values"])
    peak, total, mixed = -np.inf, 0.0, 0.0
    for read, (z, v) in enumerate(zip(scores, values, strict=True), 1):
        page.keyboard.press("ArrowRight")
        assert slider.input_value() == str(read)
        higher = max(peak, z)
        total = total * np.exp(peak - higher) + np.exp(z - higher)
        mixed = mixed * np.exp(peak - higher) + np.exp(z - higher) * v
        peak = higher
        shown = widget.locator(".online .state").inner_text().replace("−", "-")
        for number in (f"{peak:.2f}", f"{total:.3f}", f"{mixed / total:.2f}"):
            assert number in shown
    assert f"{mixed / total:.2f}" in heard(page, TAG)


def test_a_row_of_the_map_is_picked_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    canvas = widget.locator(".sheet canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    canvas.tap(position={"x": box["width"] / 2, "y": box["height"] * 0.7})
    assert widget.evaluate("element => element.row") == 3
    assert widget.locator(".query input").nth(3).is_checked()
