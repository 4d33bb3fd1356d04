"""<trivium-detector>: the detector in the page answers as the package does, and can be tried."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

from trivium.models import Detector, ResNet, with_page_layers

pytestmark = pytest.mark.browser

TAG = "trivium-detector"
READY = """() => {
  const element = document.querySelector("trivium-detector");
  return element.maps && !element.stale;
}"""


def awake(page):
    """The widget, near enough to be seen and done with looking."""
    widget = element(page, TAG)
    widget.scroll_into_view_if_needed()
    page.wait_for_function(READY)
    return widget


def composed(widget, items):
    """Values [96, 96] and boxes of a scene, as the page composes it."""
    found = widget.evaluate(
        """(element, items) => {
          const named = items.map(([garment, scale, top, left]) => ({ garment, scale, top, left }));
          const { values, boxes } = element.compose(named);
          return JSON.stringify([Array.from(values), boxes]);
        }""",
        items,
    )
    values, boxes = json.loads(found)
    return np.reshape(np.array(values, np.float32), (96, 96)), boxes


def package(data):
    model = Detector(ResNet(10, rngs=nnx.Rngs(0)), 10, rngs=nnx.Rngs(0))
    return with_page_layers(model, data["layers"])


def test_the_page_composes_scenes_as_the_book_does(visit):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    widget = element(page, TAG)
    for items in data["scenes"]:
        canvas = np.zeros((96, 96), np.float32)
        owner = np.full((96, 96), -1)
        for number, (which, scale, top, left) in enumerate(items):
            piece = data["garments"][which].repeat(scale, axis=0).repeat(scale, axis=1)
            window = np.s_[top : top + 28 * scale, left : left + 28 * scale]
            canvas[window] = np.where(piece >= 8, piece / np.float32(255), canvas[window])
            owner[window] = np.where(piece >= 8, number, owner[window])
        values, boxes = composed(widget, items)
        np.testing.assert_allclose(values, canvas, atol=1e-6)
        for number, (top, left, bottom, right) in enumerate(boxes):
            y, x = np.nonzero(owner == number)
            assert (top, left, bottom, right) == (y.min(), x.min(), y.max() + 1, x.max() + 1)


def test_the_detector_in_the_page_answers_as_the_package_does(visit):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    widget = element(page, TAG)
    model = package(data)
    for items in data["scenes"][2:4]:
        values, _ = composed(widget, items)
        answer = widget.evaluate(
            """(element, values) => {
              const maps = element.look(Float32Array.from(JSON.parse(values)));
              const { heat, size, offset } = maps;
              const numbers = [heat, size, offset].map((map) => Array.from(map.values));
              return JSON.stringify([...numbers, element.find(maps, 0.5)]);
            }""",
            json.dumps(values.ravel().tolist()),
        )
        *page_maps, found = json.loads(answer)
        picture = jnp.asarray(values)[None, :, :, None]
        maps = model(picture)
        expected = (jax.nn.sigmoid(maps.heat), maps.size, maps.offset)
        for mine, theirs in zip(page_maps, expected, strict=True):
            np.testing.assert_allclose(mine, theirs.ravel(), rtol=2e-3, atol=2e-3)
        detections = model.detect(picture, count=20, threshold=0.5)
        sure = np.asarray(detections.scores[0]) >= 0.05
        shown = [each for each in found if each["score"] >= 0.05]
        assert [each["kind"] for each in shown] == np.asarray(detections.classes[0])[sure].tolist()
        np.testing.assert_allclose(
            [each["box"] for each in shown], np.asarray(detections.boxes[0])[sure], atol=0.1
        )


def test_limits_decide_what_is_shown(visit):  # noqa: F811
    page = visit(TAG)
    widget = awake(page)
    least = widget.locator("input.least")
    counts = []
    for value in ("0.05", "0.3", "0.95"):
        least.fill(value)
        counts.append(widget.locator("rect.found").count())
        assert widget.locator(".answers li").count() == counts[-1]
    assert counts[0] >= counts[1] >= counts[2]
    assert str(counts[2]) in heard(page, TAG)
    least.fill("0.05")
    suppress = widget.locator("input.suppress")
    suppress.fill("1")
    loose = widget.locator("rect.found").count()
    suppress.fill("0")
    assert widget.locator("rect.found").count() <= loose


def test_true_boxes_and_the_heat_of_a_class(visit):  # noqa: F811
    page = visit(TAG)
    widget = awake(page)
    count = widget.evaluate("element => element.items.length")
    assert widget.locator("rect.true").count() == count
    widget.locator("button.truth").click()
    assert widget.locator("rect.true").count() == 0
    label = widget.locator(".heat canvas").get_attribute("aria-label")
    classes = data_of(page, TAG)["classes"]
    widget.locator(".heat select").select_option("8")
    changed = widget.locator(".heat canvas").get_attribute("aria-label")
    assert changed != label
    assert classes[8] in changed


def test_detector_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    widget = awake(page)
    item = "element => ({ ...element.items[0] })"
    widget.locator(".item").first.focus()
    before = widget.evaluate(item)
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    page.keyboard.press("-" if before["scale"] == 2 else "+")
    after = widget.evaluate(item)
    assert after["scale"] == 3 - before["scale"]
    assert widget.locator(".pick select").input_value() == "own"
    for _ in range(20):
        page.keyboard.press("Shift+ArrowUp")
    assert widget.evaluate(item)["top"] == 0, "a garment stays on the scene"
    page.wait_for_function(READY)
    count = widget.evaluate("element => element.items.length")
    page.keyboard.press("Delete")
    assert widget.evaluate("element => element.items.length") == count - 1


def test_detector_by_pointer_and_an_empty_scene(visit):  # noqa: F811
    page = visit(TAG)
    widget = awake(page)
    box = widget.locator(".item").last.bounding_box()
    start = widget.evaluate("element => ({ ...element.items.at(-1) })")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    aim = 40 if start["left"] < 34 else -40
    page.mouse.move(box["x"] + box["width"] / 2 + aim, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    page.wait_for_function(READY)
    moved = widget.evaluate("element => ({ ...element.items.at(-1) })")
    pixel = 96 / widget.locator(".stage canvas").bounding_box()["width"]
    assert abs(moved["left"] - start["left"] - aim * pixel) <= 1

    while widget.locator("button.remove").is_enabled():
        widget.locator("button.remove").click()
    page.wait_for_function(READY)
    assert heard(page, TAG).startswith("There is no garment")
    assert widget.locator("rect.true").count() == 0
    for _ in range(6):
        widget.locator("button.add").click()
    assert widget.locator("button.add").is_disabled()
    page.wait_for_function(READY)
    assert widget.evaluate("element => element.items.length") == 6


def test_a_garment_that_nothing_is_seen_of(visit):  # noqa: F811
    page = visit(TAG)
    widget = awake(page)
    widget.evaluate(
        """element => {
          const bag = element.kinds.indexOf(8);
          element.items = [1, 2].map(() => ({ garment: bag, scale: 2, top: 10, left: 10 }));
          element.chosen = 1;
          element.arrange();
          element.changed(0);
        }"""
    )
    page.wait_for_function(READY)
    assert widget.locator("rect.true").count() == 1
    assert "nothing is seen" in heard(page, TAG)


@pytest.mark.parametrize("wrong", [[99, 1, 0, 0], [0, 2, 60, 0], [0, 3, 0, 0]])
def test_a_scene_that_cannot_be_is_refused(visit, wrong):  # noqa: F811
    page = visit(TAG)
    said = element(page, TAG).evaluate(
        """(element, wrong) => {
          const data = JSON.parse(element.querySelector("script").textContent);
          try {
            element.load({ ...data, scenes: [[wrong]] });
          } catch (error) {
            return error.message;
          }
          return "";
        }""",
        wrong,
    )
    assert "not on the scene" in said


def test_detector_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = awake(page)
    count = widget.evaluate("element => element.items.length")
    widget.locator("button.add").tap()
    page.wait_for_function(READY)
    assert widget.evaluate("element => element.items.length") == count + 1
    widget.locator("button.size").tap()
    assert widget.evaluate("element => element.items.at(-1).scale") == 2
    assert widget.evaluate("element => element.scrollWidth <= element.clientWidth")
