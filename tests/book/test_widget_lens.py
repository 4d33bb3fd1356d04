"""<trivium-lens>: what it shows is what the model would say, and it can be moved by all means."""

import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

pytestmark = pytest.mark.browser

TAG = "trivium-lens"


def test_the_guesses_are_those_of_the_data(visit):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    widget = element(page, TAG)
    for number, prompt in enumerate(data["prompts"]):
        layers, places, count = prompt["guesses"].shape
        assert places == len(prompt["tokens"])
        assert (np.diff(prompt["shares"], axis=-1) <= 0).all()
        assert prompt["shares"].sum(-1).max() <= 1.001
        found = widget.evaluate(
            "(element, [prompt, place]) => element.guesses(prompt, place)", [number, places - 1]
        )
        assert len(found) == layers
        for layer in range(layers):
            words = [data["words"][i] for i in prompt["guesses"][layer, -1]]
            assert [each["word"] for each in found[layer]] == words
            shares = [each["share"] for each in found[layer]]
            np.testing.assert_allclose(shares, prompt["shares"][layer, -1], rtol=1e-6)
            assert len(words) == count


def test_the_model_knows_the_capital(visit):  # noqa: F811
    page = visit(TAG)
    assert "·Tokyo" in heard(page, TAG)
    rows = element(page, TAG).locator("tbody tr")
    assert rows.count() == data_of(page, TAG)["prompts"][0]["guesses"].shape[0]
    assert "·Tokyo" in rows.first.locator("td").first.inner_text()
    assert "Tokyo" not in rows.last.inner_text()


def test_places_and_texts_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    slider = widget.locator(".step input")
    slider.focus()
    page.keyboard.press("Home")
    assert widget.evaluate("element => element.at") == 0
    page.keyboard.press("ArrowRight")
    assert widget.evaluate("element => element.at") == 1
    assert widget.locator(".tokens input").nth(1).is_checked()
    before = heard(page, TAG)
    widget.locator(".tokens input").nth(1).focus()
    page.keyboard.press("ArrowRight")
    assert widget.evaluate("element => element.at") == 2
    assert slider.input_value() == "2"
    assert heard(page, TAG) != before
    widget.locator(".pick select").select_option("1")
    assert widget.locator(".tokens input").count() == len(data["prompts"][1]["tokens"])
    assert widget.evaluate("element => element.at") == len(data["prompts"][1]["tokens"]) - 1


def test_a_token_is_picked_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    widget.locator(".tokens label").nth(3).tap()
    assert widget.evaluate("element => element.at") == 3
    widget.locator(".step button").first.tap()
    assert widget.evaluate("element => element.at") == 2
    assert widget.evaluate("element => element.scrollWidth <= element.clientWidth")
