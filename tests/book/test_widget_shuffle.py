"""<trivium-shuffle>: the networks in the page answer as the package's kernel does, for everyone."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

from trivium.kernels import conv2d

pytestmark = pytest.mark.browser

TAG = "trivium-shuffle"


def logits(page, name):
    """The widget's answers to all of its pictures, in all degrees [degrees, N, classes]."""
    return np.array(
        json.loads(
            element(page, TAG).evaluate(
                """(element, name) => JSON.stringify(element.blocks.map((_, degree) =>
                  element.images.map(image => Array.from(element.answer(name, image, degree)))))""",
                name,
            )
        )
    )


def expected_conv(weights, x):
    maps = conv2d(
        x.reshape(-1, 28, 28, 1),
        jnp.asarray(weights["w"]),
        jnp.asarray(weights["b"]),
        stride=2,
        padding="VALID",
    )
    means = jax.nn.relu(maps).reshape(len(x), 4, 3, 4, 3, -1).mean((2, 4)).reshape(len(x), -1)
    return means @ weights["v"] + weights["c"]


def test_both_networks_answer_as_the_package_does(visit):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    images = data["images"].astype(np.float32) / np.float32(255)
    conv, dense = logits(page, "conv"), logits(page, "dense")
    for degree, order in enumerate(data["orders"]):
        np.testing.assert_array_equal(np.sort(order), np.arange(784))
        expected = expected_conv(data["conv"][degree], jnp.asarray(images[:, order]))
        np.testing.assert_allclose(conv[degree], expected, atol=1e-3)
    weights = data["dense"]
    hidden = np.maximum(0, images @ weights["w"] + weights["b"])
    # The same in every degree: the weights are rearranged along with the pixels.
    for answers in dense:
        np.testing.assert_allclose(answers, hidden @ weights["v"] + weights["c"], atol=1e-3)


def test_what_is_seen_is_the_shuffled_picture(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    last = len(data["blocks"]) - 1
    seen = widget.evaluate(
        "(element, degree) => Array.from(element.shuffled(element.images[3], degree))", last
    )
    np.testing.assert_allclose(seen, data["images"][3][data["orders"][last]] / 255, atol=1e-6)


def test_shuffle_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    place = "element => element.degree"
    before = heard(page, TAG)
    widget.locator(".degree input").first.focus()
    page.keyboard.press("ArrowRight")
    assert widget.evaluate(place) == 1
    assert f"{data['blocks'][1]} × {data['blocks'][1]}" in heard(page, TAG)
    assert heard(page, TAG) != before
    widget.locator(".pick select").select_option("5")
    assert data["classes"][data["labels"][5]] in heard(page, TAG).rsplit("label", 1)[1]
    assert widget.locator(".net.dense .first").count() == 1


def test_shuffle_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    widget.locator(".degree label").last.tap()
    assert widget.evaluate("element => element.degree === element.blocks.length - 1")
