"""The filter widget: its sums are the package's, its window follows pointer and keys."""

import json
from itertools import product

import jax.numpy as jnp
import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit

from trivium.kernels import conv2d

pytestmark = pytest.mark.browser

__all__ = ["address", "visit"]  # fixtures, found by their names

TAG = "trivium-filter"

FORWARD = """(element, [picture, weights, options]) => {
  const { values, rows, columns } = element.pictures[picture];
  const made = element.forward(values, rows, columns, weights, options);
  return JSON.stringify([made.rows, made.columns, Array.from(made.values)]);
}"""

SHOWN = """element => {
  const numbers = cells => cells.map(cell => parseFloat(cell.textContent.replace("−", "-")));
  return { pixels: numbers(element.pixels), products: numbers(element.products),
    weights: element.weights, row: element.row, column: element.column,
    sum: element.result.values[element.row * element.result.columns + element.column] };
}"""


def expected(picture, weights, *, stride, dilation, padding):
    """What the package makes of a picture of bytes."""
    x = jnp.asarray(picture.astype(np.float32) / np.float32(255))[None, :, :, None]
    w = jnp.asarray(weights, jnp.float32).reshape(3, 3, 1, 1)
    return np.asarray(conv2d(x, w, stride=stride, padding=padding, dilation=dilation))[0, :, :, 0]


def test_the_sums_are_those_of_the_package(visit):
    page = visit(TAG)
    data = data_of(page, TAG)
    own = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    for number, picture in enumerate(data["pictures"]):
        for weights, stride, dilation, padding in product(
            (own, data["learned"][0]), (1, 2, 3), (1, 2, 3), (0, 1, 2)
        ):
            options = {"stride": stride, "dilation": dilation, "padding": padding}
            made = element(page, TAG).evaluate(
                FORWARD, [number, weights.ravel().astype(float).tolist(), options]
            )
            rows, columns, values = json.loads(made)
            right = expected(picture, weights, **options)
            assert (rows, columns) == right.shape
            np.testing.assert_allclose(np.reshape(values, right.shape), right, atol=1e-5)


def test_a_learned_filter_is_the_one_in_the_data(visit):
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    options = widget.locator("select option").all_inner_texts()
    count = len(data["learned"])
    widget.locator("select").select_option(str(len(options) - 2))  # the last but "your own"
    shown = widget.evaluate(SHOWN)
    np.testing.assert_allclose(shown["weights"], data["learned"][count - 1].ravel(), atol=1e-6)
    fields = [float(each.input_value()) for each in widget.locator(".cells input").all()]
    np.testing.assert_allclose(fields, shown["weights"], atol=0.0051)


def test_the_window_shows_the_products_of_its_place(visit):
    page = visit(TAG)
    widget = element(page, TAG)
    picture = data_of(page, TAG)["pictures"][0] / 255
    canvas = widget.locator(".picture canvas")
    box = canvas.bounding_box()
    canvas.hover(position={"x": 0.3 * box["width"], "y": 0.4 * box["height"]})
    shown = widget.evaluate(SHOWN)
    row, column = shown["row"], shown["column"]  # padding 1: the place is the window's middle
    assert abs(row - 0.4 * picture.shape[0]) < 2
    assert abs(column - 0.3 * picture.shape[1]) < 2
    patch = picture[row - 1 : row + 2, column - 1 : column + 2].ravel()
    np.testing.assert_allclose(shown["pixels"], patch, atol=0.0051)
    np.testing.assert_allclose(shown["products"], patch * shown["weights"], atol=0.0051)
    assert shown["sum"] == pytest.approx(patch @ shown["weights"], abs=1e-5)


def test_by_keyboard(visit):
    page = visit(TAG)
    widget = element(page, TAG)
    before = widget.evaluate(SHOWN)
    widget.locator(".map canvas").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    after = widget.evaluate(SHOWN)
    assert (after["row"], after["column"]) == (before["row"] - 1, before["column"] + 2)
    for _ in range(100):
        page.keyboard.press("ArrowUp")
    assert widget.evaluate(SHOWN)["row"] == 0
    spoken = widget.locator("[aria-live=polite]").inner_text()
    assert spoken.startswith("Row 1,")


def test_stride_changes_the_size_and_says_so(visit):
    page = visit(TAG)
    widget = element(page, TAG)
    rows, columns = data_of(page, TAG)["pictures"][0].shape
    stride = widget.locator(".options [role=radiogroup]").first.locator("input")
    stride.nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert f"= {rows // 2}." in heard(page, TAG)
    assert f"{columns // 2}." in heard(page, TAG)
    assert widget.evaluate("element => [element.result.rows, element.result.columns]") == [
        rows // 2,
        columns // 2,
    ]


def test_own_weights_and_the_half_turn(visit):
    page = visit(TAG)
    widget = element(page, TAG)
    fields = widget.locator(".cells input")
    fields.nth(0).fill("2.5")
    weights = widget.evaluate(SHOWN)["weights"]
    assert weights[0] == 2.5
    assert widget.locator("select").input_value() == "-1"
    widget.locator("button").first.click()
    assert widget.evaluate(SHOWN)["weights"] == weights[::-1]
    assert fields.nth(8).input_value() == "2.5"
    fields.nth(8).fill("")  # an empty field is no weight: the last one stays
    assert widget.evaluate(SHOWN)["weights"] == weights[::-1]


def test_it_answers_while_a_pointer_moves(visit):
    page = visit(TAG)
    milliseconds = element(page, TAG).evaluate(
        """element => {
          const times = Array.from({ length: 20 }, () => {
            const start = performance.now();
            element.compute();
            return performance.now() - start;
          });
          return times.sort((a, b) => a - b)[10];
        }"""
    )
    assert milliseconds < 50
