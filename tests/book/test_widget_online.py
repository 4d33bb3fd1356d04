"""<trivium-online>: its numbers are the package's, and it can be moved by hand, key and touch."""

import jax.numpy as jnp
import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

from trivium.kernels import attention

pytestmark = pytest.mark.browser

TAG = "trivium-online"


def kernel(scores, values):
    """The softmax-weighted mean by the package: keys of one number, read by a query of 1."""
    k, v = np.zeros((2, 1, len(scores), 1, 3), np.float32)
    k[0, :, 0, 0], v[0, :, 0] = scores, values
    q = jnp.zeros((1, 1, 1, 3)).at[..., 0].set(1)
    return np.asarray(attention(q, jnp.asarray(k), jnp.asarray(v), scale=1.0))[0, 0, 0]


def states(scores, values, tile):
    """(maximum, sum, weighted sum) after each tile, by definition."""
    found = []
    for read in range(tile, len(scores) + 1, tile):
        peak = np.max(scores[:read])
        parts = np.exp(scores[:read] - peak)
        found.append((peak, parts.sum(), parts @ values[:read]))
    return found


def test_the_states_are_those_of_the_keys_read(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    rng = np.random.default_rng(0)
    for tile in (1, 2, 4, 8):
        scores, values = 3 * rng.normal(size=16), rng.normal(size=(16, 3))
        found = widget.evaluate(
            """(element, [scores, values, tile]) => ({
              states: element.online(scores, values, tile).slice(1),
              mean: element.plain(scores, values).mean,
            })""",
            [scores.tolist(), values.tolist(), tile],
        )
        for each, (peak, total, mixed) in zip(
            found["states"], states(scores, values, tile), strict=True
        ):
            assert each["peak"] == pytest.approx(peak)
            assert each["total"] == pytest.approx(total)
            np.testing.assert_allclose(each["mixed"], mixed, atol=1e-9)
        last = found["states"][-1]
        expected = kernel(scores, values)
        np.testing.assert_allclose(np.divide(last["mixed"], last["total"]), expected, atol=1e-5)
        np.testing.assert_allclose(found["mean"], expected, atol=1e-5)


def test_an_extreme_score_overflows_only_without_the_maximum(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    assert "overflows" not in widget.locator(".check").inner_text()
    widget.locator(".extreme").click()
    assert "overflows" in widget.locator(".check").inner_text()
    scores = np.asarray(widget.evaluate("element => element.scores"))
    assert scores.max() == 100
    with np.errstate(over="ignore"):
        assert np.isinf(np.exp(scores.astype(np.float32)).sum())
    widget.locator(".step input").focus()
    page.keyboard.press("End")
    values = np.asarray(widget.evaluate("element => element.values"))
    shown = [each.inner_text() for each in widget.locator(".result li > span").all()]
    np.testing.assert_allclose(np.array(shown, float), kernel(scores, values), atol=1e-3)
    widget.locator(".reset").click()
    assert widget.evaluate("element => Math.max(...element.scores)") < 100


def test_stepping_by_keyboard_shows_each_state(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    count, tile = data["count"], data["tile"]
    slider = widget.locator(".step input")
    slider.focus()
    page.keyboard.press("Home")
    expected = states(data["scores"][:count], data["values"][:count], tile)
    for step, (_, total, _) in enumerate(expected, 1):
        page.keyboard.press("ArrowRight")
        assert slider.input_value() == str(step)
        assert f"{total:.3f}" in heard(page, TAG)
    assert "the same as all at once" in heard(page, TAG)
    widget.get_by_label("One tile back").click()
    assert slider.input_value() == str(len(expected) - 1)


def test_tiles_and_length_can_be_chosen(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    slider = widget.locator(".step input")
    widget.get_by_role("radio", name="4 in a tile").check(force=True)
    assert slider.get_attribute("max") == "2"
    widget.get_by_role("radio", name="16 keys").check(force=True)
    assert slider.get_attribute("max") == "4"
    assert widget.locator(".keys label:visible").count() == 16
    widget.get_by_role("radio", name="8 keys").check(force=True)
    assert widget.locator(".keys label:visible").count() == 8


def test_a_score_can_be_changed_and_the_keys_shuffled(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    widget.locator(".keys .grid input").nth(2).check(force=True)
    changer = widget.get_by_label("Score of key 3")
    changer.focus()
    page.keyboard.press("End")
    assert widget.evaluate("element => element.scores[2]") == 6
    pairs = "element => element.scores.map((z, s) => [z, ...element.values[s]])"
    before = widget.evaluate(pairs)
    widget.locator(".shuffle").click()
    after = widget.evaluate(pairs)
    assert sorted(before) == sorted(after)


def test_it_plays_to_the_end(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    slider = widget.locator(".step input")
    end = int(slider.get_attribute("max"))
    page.clock.install()
    widget.locator(".play").click()
    page.clock.run_for(1000)
    assert slider.input_value() == "1"
    page.clock.run_for(1000 * end)
    assert slider.input_value() == str(end)


def test_a_key_is_picked_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    widget.locator(".keys .grid label").nth(4).tap()
    assert widget.evaluate("element => element.key") == 4
