"""Figures: theme-aware SVG with words, widgets with their data, values for the prose."""

import base64
import itertools
import json
import re
from xml.etree import ElementTree

import jax.numpy as jnp
import numpy as np
import pytest

from trivium import figures


@pytest.fixture
def displayed(monkeypatch):
    """What a chapter's cell would put on its page."""
    shown = []
    monkeypatch.setattr(figures, "_display", shown.append)
    return shown


@pytest.fixture
def drawing():
    fig, axes = figures.figure(4, 2, columns=2)
    figures.curves(axes[0], {"train": [1, 2], "test": [1, 3]}, colors={"test": "attention"})
    figures.image(axes[1], np.eye(3), color="convolution")
    axes[1].text(0, 0, "words < & >")
    return fig


def test_svg_follows_the_theme_and_speaks(drawing):
    text = figures.svg(drawing, alt='a "quoted" description')
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'a "quoted" description'
    assert "var(--trivium-attention, #00734f)" in text
    assert 'class="trivium-adapt"' in text
    # No color of the palette is left that a dark page could not replace.
    bare = re.sub(r"var\(--trivium-[a-z]+, #[0-9a-f]{6}\)", "", text)
    assert not [color for color in figures.COLORS.values() if color in bare.lower()]
    assert "DejaVu" not in text


def test_two_figures_share_no_identifier(drawing):
    other, ax = figures.figure(2, 2)
    ax.plot([0, 1], [1, 0])
    first, second = (
        set(re.findall(r'\bid="([^"]+)"', figures.svg(f, alt="x"))) for f in (drawing, other)
    )
    assert first
    assert second
    assert not first & second


def test_references_inside_a_figure_resolve(drawing):
    text = figures.svg(drawing, alt="x")
    targets = set(re.findall(r'\bid="([^"]+)"', text))
    references = re.findall(r'(?:url\(|href=")#([^")]+)', text)
    assert references
    assert set(references) <= targets


def test_the_same_figure_gives_the_same_text():
    def draw():
        fig, ax = figures.figure(2, 2)
        ax.plot([0, 1], [0, 1])
        return figures.svg(fig, alt="x")

    assert draw() == draw()


def test_a_figure_needs_words(drawing):
    with pytest.raises(ValueError, match="alt"):
        figures.svg(drawing, alt=" ")


def test_labels_of_close_curves_do_not_overlap():
    fig, ax = figures.figure(4, 2)
    figures.curves(ax, {"a": [0, 1.0], "b": [0, 1.001], "c": [0, 1.002]})
    fig.canvas.draw()
    boxes = sorted((label.get_window_extent() for label in ax.texts), key=lambda box: box.y0)
    assert all(low.y0 + low.height * 0.6 < high.y0 for low, high in itertools.pairwise(boxes))


def test_widget_carries_data_and_fallback(displayed, drawing):
    data = {"w": jnp.arange(6, dtype=jnp.float32).reshape(2, 3), "n": np.int64(3),
            "text": {"title": "</script>"}, "list": [np.array([1, 2], np.uint8)]}  # fmt: skip
    figures.widget("trivium-test", data, fallback=drawing, alt="static")
    (content,) = displayed
    assert content.startswith('<trivium-test><div class="trivium-figure"')
    assert 'slot="fallback"' in content
    body = re.search(r'<script type="application/json">(.*?)</script>', content, re.DOTALL).group(1)
    packed = json.loads(body)
    assert packed["n"] == 3
    assert packed["text"]["title"] == "</script>"
    assert packed["w"]["shape"] == [2, 3]
    numbers = np.frombuffer(base64.b64decode(packed["w"]["base64"]), "<f4")
    np.testing.assert_array_equal(numbers, np.arange(6))
    assert packed["list"][0]["dtype"] == "uint8"


def test_widget_refuses_foreign_tags(drawing):
    with pytest.raises(ValueError, match="tag"):
        figures.widget("script", {}, fallback=drawing, alt="x")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.5, "0.5"), (np.float32(0.5), "0.5"), (jnp.float32(0.5), "0.5"), (7, "7"), ("a", "'a'")],
)
def test_glue_records_plain_values(monkeypatch, value, expected):
    import IPython.display

    recorded = []
    monkeypatch.setattr(
        IPython.display,
        "display",
        lambda bundle, raw, metadata: recorded.append((bundle, metadata)),
    )
    figures.glue("name", value)
    ((bundle, metadata),) = recorded
    assert bundle == {"application/papermill.record/text/plain": expected}
    assert metadata["scrapbook"]["name"] == "name"


def test_table_is_markdown(capsys):
    figures.table(["model", "accuracy"], ["CNN", 0.9], ["`x`", "a"])
    # Outside a notebook IPython prints what it would display.
    assert "Markdown object" in capsys.readouterr().out
    with pytest.raises(ValueError, match="expected 2 cells, got 1"):
        figures.table(["model", "accuracy"], ["CNN"])


def test_table_aligns_its_columns(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    figures.table(["model", "accuracy"], ["CNN", 0.9])
    assert shown[0].data == "| model | accuracy |\n| :--- | ---: |\n| CNN | 0.9 |"


@pytest.fixture
def moving():
    """A square that grows pale, then stays; a circle that stands still."""
    picture = figures.Moving(20, 10, seconds=4)
    square = figures.shape("rect", x=0, width=2.5, fill="attention", stroke_width=1)
    picture.add([square], rest="fill: gray", motion={2: "opacity: 0", 1: "opacity: 1"})
    picture.add([figures.shape("circle", r=1, fill="none")])
    return picture


def test_a_moving_picture_is_named_at_rest_and_in_the_palette(moving):
    text = moving.html(name="a & b", alt="A <square>.")
    root = ElementTree.fromstring(text)
    drawn = root.find("{*}svg")
    assert (drawn.get("role"), drawn.get("aria-label")) == ("img", "A <square>.")
    assert drawn.get("viewBox") == "0 0 20 10"
    assert root.find("label/input").get("aria-label") == "Pause a & b"
    square, circle = drawn.iterfind("{*}g")
    gray, green = (f"var(--trivium-{c}, {figures.COLORS[c]})" for c in ("gray", "attention"))
    assert square.get("style") == f"fill: {gray}"
    assert square[0].attrib == {"x": "0", "width": "2.5", "fill": green, "stroke-width": "1"}
    assert circle.get("style") is None
    assert circle[0].attrib == {"r": "1", "fill": "none"}


def test_a_moving_picture_stands_still_before_and_after_its_motion(moving):
    style = ElementTree.fromstring(moving.html(name="a", alt="A square.")).find("style").text
    ((scope, frames),) = re.findall(r"@keyframes (m\w+)-0\{(.*?\})\}", style)
    assert frames == "0%{opacity: 1}25%{opacity: 1}50%{opacity: 0}100%{opacity: 0}"
    assert f"animation:{scope}-0 4s linear infinite" in style
    assert f"{scope}-1" not in style
    # All that moves stands behind the question of whether motion is wanted.
    assert style.index("animation:") > style.index("(prefers-reduced-motion:no-preference)")


def test_two_moving_pictures_do_not_share_a_style(moving):
    styles = [
        re.search("trivium-moving (m\\w+)", moving.html(name="a", alt=alt))[1] for alt in "xy"
    ]
    assert styles[0] != styles[1]


def test_a_moving_picture_is_put_on_the_page(moving, displayed):
    moving.show(name="a", alt="A square.")
    assert displayed == [moving.html(name="a", alt="A square.")]


def test_bad_motion(moving):
    with pytest.raises(ValueError, match="seconds: expected a positive number, got 0"):
        figures.Moving(1, 1, seconds=0)
    with pytest.raises(ValueError, match=r"motion: expected seconds from 0 to 4, got 4\.5"):
        moving.add([], motion={4.5: "opacity: 0"})
    with pytest.raises(ValueError, match="alt: expected a description"):
        moving.html(name="a", alt=" ")


def test_bad_input(drawing):
    with pytest.raises(ValueError, match=r"matrix \[H, W\], got shape \(2, 2, 3\)"):
        figures.image(drawing.axes[0], np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match="expected one of convolution"):
        figures.ramp("pink")
    with pytest.raises(ValueError, match="one number"):
        figures.glue("x", np.zeros(3))
