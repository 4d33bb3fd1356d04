"""<trivium-landmarks>: what is drawn is what the table holds, for everyone."""

import numpy as np
import pytest
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

from trivium.data import landmark_models

pytestmark = pytest.mark.browser

TAG = "trivium-landmarks"


def test_the_models_on_the_page_are_those_of_the_table(visit):  # noqa: F811
    table = landmark_models()
    models = data_of(visit(TAG), TAG)["models"]
    assert [each["name"] for each in models] == table.names
    assert [each["year"] for each in models] == table.years.tolist()
    assert [each["family"] for each in models] == table.families
    for name, column in (
        ("parameters", table.parameters),
        ("examples", table.examples),
        ("compute", 6 * table.multiply_adds * table.examples),
    ):
        shown = [
            np.nan if each["values"][name] is None else each["values"][name] for each in models
        ]
        np.testing.assert_allclose(shown, column, rtol=1e-6)


def test_places_follow_the_axes(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    table = landmark_models()
    selects = widget.locator(".axes select")
    selects.nth(0).select_option("year")
    selects.nth(1).select_option("parameters")
    places = widget.evaluate("element => element.places()")
    assert [each["index"] for each in places] == np.flatnonzero(table.parameters > 0).tolist()
    years = table.years[[each["index"] for each in places]].astype(float)
    heights = np.log10(table.parameters[[each["index"] for each in places]])
    for coordinate, values in (("x", years), ("y", heights)):
        drawn = np.array([each[coordinate] for each in places])
        assert ((drawn >= 0) & (drawn <= 1)).all()
        slope, offset = np.polyfit(values, drawn, 1)
        np.testing.assert_allclose(slope * values + offset, drawn, atol=1e-6)
        assert slope > 0


def test_families_are_hidden_and_shown_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    count = "element => element.places().length"
    before = widget.evaluate(count)
    button = widget.locator(".families button").nth(1)
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert widget.evaluate(count) < before
    page.keyboard.press("Enter")
    assert widget.evaluate(count) == before


def test_models_are_stepped_through_and_touched(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    names = landmark_models().names
    assert names[-1] in heard(page, TAG)
    widget.locator(".model button").first.tap()
    assert names[-2] in heard(page, TAG)
    widget.locator(".model select").select_option(label=names[0])
    assert names[0] in heard(page, TAG)
    place = widget.evaluate(
        """element => {
          const place = element.places()[0];
          return [place.index, element.x(place.x), element.y(place.y)];
        }"""
    )
    widget.locator("svg.chart").tap(position={"x": place[1], "y": place[2]})
    assert names[place[0]] in heard(page, TAG)
