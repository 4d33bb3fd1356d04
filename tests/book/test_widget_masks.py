"""<trivium-masks>: the U-Net in the page answers as the package's, and scenes can be changed."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.metrics import jaccard_score
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

from trivium.models import ResNet, UNet, with_page_layers

pytestmark = pytest.mark.browser

TAG = "trivium-masks"
READY = f"document.querySelector('{TAG}').result"


def logits(model, image, cut):
    """What the package's U-Net says of a scene, the bridges of some levels multiplied by zero."""
    *bridges, x = model.features(image[None, :, :, None])
    for level, (up, bridge) in reversed(
        list(enumerate(zip(reversed(list(model.ups)), bridges, strict=True)))
    ):
        x = up(x, 0 * bridge if level in cut else bridge)
    return model.answer(x)[0]


@pytest.mark.parametrize("cut", [[], [0], [1, 2]])
def test_the_unet_in_the_page_answers_as_the_package_does(visit, cut):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    backbone = ResNet(10, rngs=nnx.Rngs(0))
    model = UNet(backbone, len(data["classes"]), scales=2, rngs=nnx.Rngs(0))
    model = with_page_layers(model, data["layers"])
    for scene in data["scenes"][:2]:
        image = scene.astype(np.float32) / np.float32(255)
        expected = np.asarray(logits(model, jnp.asarray(image), cut))
        found = element(page, TAG).evaluate(
            "(element, [text, cut]) => JSON.stringify(Array.from(element.segment("
            "Float32Array.from(JSON.parse(text)), cut)))",
            [json.dumps(image.ravel().tolist()), cut],
        )
        found = np.reshape(json.loads(found), expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_what_it_counts_is_what_scikit_learn_counts(visit):  # noqa: F811
    page = visit(TAG)
    page.wait_for_function(READY)
    data = data_of(page, TAG)
    found = element(page, TAG).evaluate(
        """element => {
          const { said, right, iou, wrong } = element.result;
          return { said: Array.from(said), right, iou, wrong: Array.from(wrong) };
        }"""
    )
    truth, said = data["masks"][0].ravel(), np.array(found["said"])
    present = np.union1d(truth, said)
    mean = jaccard_score(truth, said, labels=present, average="macro")
    assert found["iou"] == pytest.approx(mean)
    assert found["right"] == pytest.approx((said == truth)[truth > 0].mean())
    np.testing.assert_array_equal(found["wrong"], said != truth)
    widget = element(page, TAG)
    assert widget.evaluate("(element, p) => element.percent(p)", found["right"]) in heard(page, TAG)


def test_a_garment_is_moved_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    page.wait_for_function(READY)
    widget = element(page, TAG)
    truth = data_of(page, TAG)["masks"][0]
    row, column = widget.evaluate("element => [element.row, element.column]")
    kind = truth[row, column]
    assert kind > 0
    widget.locator("canvas[role=application]").focus()
    page.keyboard.press("Space")
    lifted = widget.evaluate("element => element.held.lifted.map(({down, right}) => [down, right])")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert widget.evaluate("element => element.held") is None
    moved = np.reshape(widget.evaluate("element => Array.from(element.truth)"), truth.shape)
    places = np.add(lifted, (row + 1, column + 1))
    places = places[(places < 96).all(axis=1)]
    assert (moved[tuple(places.T)] == kind).all()
    assert (moved != truth).any()
    page.wait_for_function(READY)
    assert f"row {row + 2}, column {column + 2}" in heard(page, TAG)
    widget.get_by_role("button", name="As it was").click()
    back = np.reshape(widget.evaluate("element => Array.from(element.truth)"), truth.shape)
    np.testing.assert_array_equal(back, truth)


def test_drawing_and_erasing_by_pointer(visit):  # noqa: F811
    page = visit(TAG)
    page.wait_for_function(READY)
    widget = element(page, TAG)
    canvas = widget.locator("canvas[role=application]")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    ends = [(box["x"] + box["width"] * part, box["y"] + box["height"] * 0.5) for part in (0.1, 0.9)]

    def stroke():
        page.mouse.move(*ends[0])
        page.mouse.down()
        page.mouse.move(*ends[1])
        page.mouse.up()
        page.wait_for_function(READY)
        return [
            np.reshape(widget.evaluate(f"element => Array.from(element.{name})"), (96, 96))
            for name in ("values", "truth")
        ]

    tools = widget.locator(".tools [role=radiogroup] input")
    tools.nth(1).click()
    values, truth = stroke()
    assert (values[48, 12:84] > 0.7).all()
    assert (truth[48, 12:84] == 255).all()
    assert "drawn" in heard(page, TAG)
    tools.nth(2).click()
    values, truth = stroke()
    assert (values[47:49, 12:84] == 0).all()
    assert (truth[47:49, 12:84] == 0).all()


def test_an_empty_canvas(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    widget.evaluate(
        """element => {
          element.values.fill(0);
          element.truth.fill(0);
          element.compute();
          element.paint();
        }"""
    )
    assert widget.evaluate("element => Math.max(...element.result.said)") == 0
    assert "no garment" in heard(page, TAG)


def test_bridges_and_scenes_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    page.wait_for_function(READY)
    widget = element(page, TAG)
    before = widget.evaluate("element => Array.from(element.result.said)")
    finest = widget.locator(".bridges button").first
    finest.tap()
    assert finest.get_attribute("aria-pressed") == "false"
    page.wait_for_function(READY)
    assert widget.evaluate("element => element.cut") == [0]
    assert widget.evaluate("element => Array.from(element.result.said)") != before
    finest.tap()
    page.wait_for_function(READY)
    assert widget.evaluate("element => Array.from(element.result.said)") == before
    widget.locator(".pick input").nth(1).tap(force=True)
    page.wait_for_function(READY)
    truth = widget.evaluate("element => Array.from(element.truth)")
    np.testing.assert_array_equal(truth, data_of(page, TAG)["masks"][1].ravel())
    panel = widget.locator(".panels canvas").first
    panel.tap(position={"x": 5, "y": 5})
    assert "row 4" in heard(page, TAG) or "row 3" in heard(page, TAG)
    assert widget.evaluate("element => element.scrollWidth <= element.clientWidth")
