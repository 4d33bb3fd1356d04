"""<trivium-garments>: the residual network in the page answers as the package does."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

from trivium.models import ResNet, with_page_layers

pytestmark = pytest.mark.browser

TAG = "trivium-garments"
PIXELS = "element => Array.from(element.image)"


def pixels(page):
    """The picture that the widget shows, [28, 28]."""
    return np.reshape(element(page, TAG).evaluate(PIXELS), (28, 28))


def test_the_resnet_in_the_page_answers_as_the_package_does(visit):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    model = with_page_layers(ResNet(len(data["classes"]), rngs=nnx.Rngs(0)), data["layers"])
    images = (data["images"].astype(np.float32) / np.float32(255))[..., None]
    images = jnp.concatenate([images, jnp.zeros((1, 28, 28, 1))])
    expected, maps = model(images), model.features(images)
    answers = element(page, TAG).evaluate(
        """(element, images) => JSON.stringify(JSON.parse(images).map(image => {
          const { maps, logits, probabilities } = element.forward(Float32Array.from(image));
          return [logits, probabilities, ...maps.map(({ values }) => values)]
            .map(values => Array.from(values));
        }))""",
        json.dumps(np.reshape(images, (len(images), -1)).tolist()),
    )
    for row, (logits, probabilities, *stages) in enumerate(json.loads(answers)):
        np.testing.assert_allclose(logits, expected[row], atol=1e-3)
        np.testing.assert_allclose(probabilities, nnx.softmax(expected[row]), atol=1e-3)
        assert len(stages) == len(maps)
        for found, stage in zip(stages, maps, strict=True):
            np.testing.assert_allclose(found, np.ravel(stage[row]), atol=1e-3)
    # Rounding its weights to eight bits has not changed what the network says of them.
    right = np.asarray(expected[:-1].argmax(1) == data["labels"]).reshape(3, 10)
    assert right[:2].all()
    assert not right[2].any()


def test_it_answers_within_a_tenth_of_a_second(visit):  # noqa: F811
    page = visit(TAG)
    milliseconds = element(page, TAG).evaluate(
        """element => {
          const times = Array.from({ length: 9 }, () => {
            const start = performance.now();
            element.forward(element.image);
            return performance.now() - start;
          });
          return Math.min(...times);
        }"""
    )
    assert milliseconds < 100


def test_a_picture_of_another_size_is_refused(visit):  # noqa: F811
    page = visit(TAG)
    message = element(page, TAG).evaluate(
        """element => {
          try { element.forward(new Float32Array(10)); } catch (error) { return error.message; }
        }"""
    )
    assert "784" in message
    assert "10" in message


def test_the_picture_can_be_changed_and_restored(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    label = data["classes"][data["labels"][0]]
    before = pixels(page)
    np.testing.assert_allclose(before, data["images"][0] / 255, atol=1e-6)
    assert f"The label says {label}." in heard(page, TAG)

    press = lambda name: widget.get_by_role("button", name=name, exact=True).click()  # noqa: E731
    press("Shift right by one pixel")
    np.testing.assert_array_equal(pixels(page)[:, 1:], before[:, :-1])
    assert "has been changed" in heard(page, TAG)
    press("Restore")
    press("Shift up by one pixel")
    np.testing.assert_array_equal(pixels(page)[:-1], before[1:])
    press("Restore")
    press("Mirror")
    np.testing.assert_array_equal(pixels(page), before[:, ::-1])
    press("Restore")
    press("Add noise")
    noise = pixels(page) - before
    assert 0.02 < noise.std() < 0.12
    assert pixels(page).min() >= 0
    assert pixels(page).max() <= 1
    press("Clear")
    assert pixels(page).max() == 0
    assert "empty" in heard(page, TAG)
    press("Restore")
    np.testing.assert_array_equal(pixels(page), before)
    assert f"The label says {label}." in heard(page, TAG)


def test_turning_by_ninety_degrees_is_exact_and_can_be_undone(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    before = pixels(page)
    slider = widget.locator(".turn input")
    slider.focus()
    page.keyboard.press("End")
    np.testing.assert_allclose(pixels(page), np.rot90(before, -1), atol=1e-5)
    page.keyboard.press("Home")
    np.testing.assert_allclose(pixels(page), np.rot90(before), atol=1e-5)
    assert slider.get_attribute("aria-valuetext") == "−90 degrees"
    for _ in range(18):
        page.keyboard.press("ArrowRight")
    np.testing.assert_allclose(pixels(page), before, atol=1e-6)


def test_every_stage_shows_its_strongest_maps(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    stages = widget.locator(".maps [role=radiogroup] input")
    canvases = widget.locator(".maps ol canvas")
    for stage, (side, channels) in enumerate(((28, 16), (14, 32), (7, 64), (4, 96))):
        stages.nth(stage).click()
        assert f"{channels} maps of {side} × {side}" in widget.locator(".maps .note").inner_text()
        assert canvases.first.evaluate("canvas => canvas.width") == side
        labels = canvases.evaluate_all("all => all.map(each => each.ariaLabel)")
        assert len(set(labels)) == len(labels) == 16


def test_garments_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    widget.locator(".pick input").first.focus()
    page.keyboard.press("ArrowRight")
    assert data["classes"][data["labels"][1]] in heard(page, TAG)

    widget.locator("canvas[role=application]").focus()
    for key in ("ArrowUp",) * 30 + ("ArrowLeft",) * 30 + ("Space", "Shift+ArrowRight"):
        page.keyboard.press(key)
    assert pixels(page)[0, 0] == pixels(page)[0, 1] == 1
    assert "has been changed" in heard(page, TAG)

    widget.locator(".input [role=radiogroup] input:checked").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert widget.evaluate("element => element.tool") == "cover"
    widget.locator("canvas[role=application]").focus()
    page.keyboard.press("Space")
    assert pixels(page)[:4, :5].max() == 0


def test_garments_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    widget.get_by_role("button", name="Clear", exact=True).tap()
    assert pixels(page).max() == 0
    pad = widget.locator("canvas[role=application]")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    pad.tap(position={"x": box["width"] / 2, "y": box["height"] / 2})
    assert pixels(page)[13:15, 13:15].min() > 0.5
    assert "has been changed" in heard(page, TAG)
    assert widget.evaluate("element => element.scrollWidth <= element.clientWidth")


def test_garments_by_pointer(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    widget.get_by_role("button", name="Clear", exact=True).click()
    empty = heard(page, TAG)
    box = widget.locator("canvas[role=application]").bounding_box()
    at = [(box["x"] + box["width"] * part, box["y"] + box["height"] * part) for part in (0.2, 0.8)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1])
    page.mouse.up()
    image = pixels(page)
    assert (np.diag(image)[6:22] == 1).all(), "a stroke has no gaps"
    assert image[5, 22] == image[22, 5] == 0
    assert heard(page, TAG) != empty
