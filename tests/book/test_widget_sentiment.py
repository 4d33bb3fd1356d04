"""<trivium-sentiment>: bag and LSTM in the page answer as the package does, and can be tried."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

from trivium.models import LSTMClassifier, mean_pool

pytestmark = pytest.mark.browser

TAG = "trivium-sentiment"


def ids_of(page, texts):
    """What the widget makes of texts: a list of numbers for each."""
    found = element(page, TAG).evaluate(
        "(element, texts) => texts.map(text => element.ids(element.tokens(text)))", texts
    )
    return [np.array(each, np.int32) for each in found]


def padded(rows):
    ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = found
    return jnp.asarray(ids), jnp.asarray([len(found) for found in rows], jnp.int32)


def table(weights):
    return jnp.asarray((weights["embeddings"].astype(np.float32) - 128) * weights["scale"])


def test_texts_become_numbers_as_in_the_package(visit):  # noqa: F811
    page = visit(TAG)
    words = data_of(page, TAG)["words"]
    assert len(words) == len(set(words)) > 3000
    assert "not" in words
    assert "but" in words
    numbers = ids_of(page, ["Not BUT; qzxw’s naïve", "", "电影"])
    found = [words[i - 2] if i > 1 else "?" for i in numbers[0]]
    assert found[:4] == ["not", "but", ";", "?"]
    assert len(found) == 5
    assert [len(each) for each in numbers[1:]] == [0, 0]
    pieces = element(page, TAG).evaluate('element => element.tokens("It’s O\'Hara, 3.5!")')
    assert pieces == ["it's", "o'hara", ",", "3", ".", "5", "!"]


def test_the_bag_answers_as_the_package_does(visit):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    rows = ids_of(page, [each["text"] for each in data["snippets"]])
    ids, lengths = padded(rows)
    bag = data["bag"]
    means = mean_pool(
        jnp.take(table(bag), ids, axis=0), mask=jnp.arange(ids.shape[1]) < lengths[:, None]
    )
    expected = means @ bag["dense_kernel"] + bag["dense_bias"]
    found = element(page, TAG).evaluate(
        "(element, rows) => rows.map(ids => element.bag(ids))", [row.tolist() for row in rows]
    )
    np.testing.assert_allclose([each["logits"] for each in found], expected, atol=1e-4)
    bias = bag["dense_bias"][1] - bag["dense_bias"][0]
    for each in found:
        odds = each["logits"][1] - each["logits"][0]
        assert sum(each["contributions"]) + bias == pytest.approx(odds, abs=1e-5)


def test_the_lstm_answers_as_the_package_does(visit):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    weights = data["lstm"]
    hidden = weights["w_hh"].shape[0]
    model = LSTMClassifier(weights["embeddings"].shape[1], hidden, 2, rngs=nnx.Rngs(0))
    for name in ("w_ih", "w_hh", "b"):
        getattr(model, name)[...] = jnp.asarray(weights[name])
    model.dense.kernel[...] = jnp.asarray(weights["dense_kernel"])
    model.dense.bias[...] = jnp.asarray(weights["dense_bias"])
    for row in ids_of(page, [each["text"] for each in data["snippets"]]):
        found = element(page, TAG).evaluate(
            "(element, ids) => JSON.stringify(element.lstm(ids))", row.tolist()
        )
        # The answer after n words is the package's answer to a text of n words.
        many = jnp.tile(jnp.take(table(weights), row, axis=0), (len(row) + 1, 1, 1))
        expected = model(many, lengths=jnp.arange(len(row) + 1, dtype=jnp.int32))
        np.testing.assert_allclose(json.loads(found), expected, atol=1e-4)


def test_shuffling_moves_the_lstm_and_not_the_bag(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    moved = []
    for number, snippet in enumerate(data["snippets"]):
        widget.locator(".pick select").select_option(str(number))
        words = widget.evaluate("element => element.words")
        bag, lstm, minilm = (
            widget.locator(f".answers .{name} span").last.inner_text()
            for name in ("bag", "lstm", "minilm")
        )
        before = widget.evaluate("element => element.last()")
        assert minilm == widget.evaluate("(element, p) => element.percent(p)", snippet["minilm"][0])
        widget.locator("button.shuffle").click()
        order = snippet["orders"][0]
        assert widget.evaluate("element => element.words") == [words[place] for place in order]
        assert widget.locator(".answers .bag span").last.inner_text() == bag
        assert widget.locator(".answers .minilm span").last.inner_text() == widget.evaluate(
            "(element, p) => element.percent(p)", snippet["minilm"][1]
        )
        moved.append(abs(widget.evaluate("element => element.last()") - before))
        widget.locator("button.restore").click()
        assert widget.evaluate("element => element.words") == words
        assert widget.locator(".answers .lstm span").last.inner_text() == lstm
    assert max(moved) > 0.02


def test_own_words_an_empty_text_and_a_long_one(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    limit = data_of(page, TAG)["limit"]
    area = widget.locator("textarea")
    area.fill("a brilliant, moving film")
    assert widget.locator(".words li").count() == 5
    assert "positive" in heard(page, TAG)
    assert widget.locator(".pick select").input_value() == "own"
    assert widget.evaluate("element => element.known()") is None
    area.fill("dull, tedious qzxw")
    assert heard(page, TAG).count("negative") == 2
    assert widget.locator(".words li.unknown").count() == 1
    widget.locator("button.shuffle").click()
    assert sorted(widget.evaluate("element => element.words")) == [",", "dull", "qzxw", "tedious"]
    area.fill("")
    assert widget.locator(".words li").count() == 0
    assert heard(page, TAG).startswith("There is no word")
    area.fill("good " * (limit + 9))
    assert widget.locator(".words li").count() == limit
    assert str(limit) in heard(page, TAG).rsplit("first", 1)[1]


def test_sentiment_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    count = widget.evaluate("element => element.words.length")
    slider = widget.locator(".step input")
    slider.focus()
    page.keyboard.press("Home")
    assert widget.evaluate("element => element.at") == 0
    page.keyboard.press("ArrowRight")
    assert widget.evaluate("element => element.at") == 1
    assert widget.locator(".words li.later").count() == count - 1
    page.keyboard.press("End")
    key = widget.locator(".note").inner_text()
    widget.locator("[role=radiogroup] input:checked").focus()
    page.keyboard.press("ArrowRight")
    assert widget.evaluate("element => element.view") == "lstm"
    assert widget.locator(".note").inner_text() != key


def test_sentiment_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    widget.locator("button.shuffle").tap()
    assert widget.evaluate("element => element.order") == 0
    before = widget.evaluate("element => element.at")
    widget.locator(".step button").first.tap()
    assert widget.evaluate("element => element.at") == before - 1
    assert widget.evaluate("element => element.scrollWidth <= element.clientWidth")
