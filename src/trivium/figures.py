"""Figures for the page: one style, one palette, light and dark from one drawing.

Color means family: convolution blue, recurrence orange, attention green, everything else gray.
A figure is drawn once with matplotlib and put on the page as inline SVG whose colors are CSS
variables (`--trivium-convolution`, ...), so that it follows the page's theme; where nobody
defines them, as in Colab, the light colors stand. Nothing here needs a window or pyplot.
A picture that moves (`Moving`) is SVG and CSS, without a script.
"""

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

COLORS = {
    "convolution": "#0072b2",
    "recurrence": "#b34700",
    "attention": "#00734f",
    "ink": "#1f2328",
    "muted": "#636c76",
    "gray": "#858d96",
    "grid": "#d6dbe0",
    "paper": "#fefefe",
}

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": COLORS["muted"],
    "axes.facecolor": "none",
    "axes.grid": False,
    "axes.labelcolor": COLORS["ink"],
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": COLORS["ink"],
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.facecolor": "none",
    "font.size": 10.5,
    "grid.color": COLORS["grid"],
    "grid.linewidth": 0.8,
    "image.interpolation": "none",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": COLORS["ink"],
    "xtick.color": COLORS["muted"],
    "xtick.labelcolor": COLORS["ink"],
    "ytick.color": COLORS["muted"],
    "ytick.labelcolor": COLORS["ink"],
}


def figure(
    width: float = 6.8,
    height: float = 3.2,
    *,
    rows: int = 1,
    columns: int = 1,
    **subplots: Any,
) -> tuple[Figure, Any]:
    """An empty figure in the book's style, which from then on is matplotlib's style.

    Args:
        width: inches; 6.8 fills the page's column.
        height: inches.
        rows: rows of axes.
        columns: columns of axes.
        subplots: further options of `Figure.subplots`, such as `sharey` or `width_ratios`.

    Returns:
        The figure, and its axes: one, or an array as from `Figure.subplots`.
    """
    # Kept for the session, because texts and lines take their style when they are added later.
    mpl.rcParams.update(STYLE)
    drawing = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
    return drawing, drawing.subplots(rows, columns, **subplots)


def ramp(color: str = "ink") -> LinearSegmentedColormap:
    """A color map from transparent to one color of the palette, for values in [0, 1].

    Transparent zero lets the page's own background through, in light and in dark.
    """
    rgb = to_rgb(_color(color))
    return LinearSegmentedColormap.from_list(f"trivium-{color}", [(*rgb, 0.0), (*rgb, 1.0)])


def signed_ramp(color: str = "ink") -> LinearSegmentedColormap:
    """A color map for signed values: gray below zero, transparent at zero, `color` above."""
    low, high = to_rgb(COLORS["gray"]), to_rgb(_color(color))
    stops = [(0.0, (*low, 1.0)), (0.5, (*low, 0.0)), (0.5, (*high, 0.0)), (1.0, (*high, 1.0))]
    return LinearSegmentedColormap.from_list(f"trivium-signed-{color}", stops)


def image(ax: Axes, values: Any, *, color: str = "ink", signed: bool = False, **imshow: Any) -> Any:
    """Draw a matrix [H, W] as an image without ticks, in a color of the palette.

    Args:
        ax: where to draw.
        values: array [H, W]; more is darker. Drawn from 0 to its maximum unless `vmin` and
            `vmax` say otherwise; with `signed`, symmetric around zero.
        color: a name in `COLORS`.
        signed: whether values below zero are drawn in gray.
        imshow: further options of `Axes.imshow`.

    Raises:
        ValueError: if `values` is not a matrix.
    """
    values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(f"values: expected a matrix [H, W], got shape {values.shape}")
    if signed:
        top = float(np.abs(values).max()) or 1.0
        imshow = {"vmin": -top, "vmax": top} | imshow
    else:
        imshow = {"vmin": 0.0, "vmax": float(values.max()) or 1.0} | imshow
    drawn = ax.imshow(values, cmap=signed_ramp(color) if signed else ramp(color), **imshow)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_color(COLORS["grid"])
    return drawn


def curves(
    ax: Axes,
    lines: Mapping[str, Sequence[float]],
    *,
    x: Sequence[float] | None = None,
    colors: Mapping[str, str] | None = None,
    xlabel: str = "epoch",
    ylabel: str = "",
) -> None:
    """Draw named curves with their names at their right ends instead of a legend.

    Args:
        ax: where to draw.
        lines: name -> values.
        x: positions shared by all lines; 1, 2, 3, ... unless given.
        colors: name -> name in `COLORS`; gray for a line that is not named.
        xlabel: label of the horizontal axis.
        ylabel: label of the vertical axis.
    """
    ends = []
    for name, line in lines.items():
        values = np.asarray(line, dtype=float)
        positions = np.arange(1, len(values) + 1) if x is None else np.asarray(x, dtype=float)
        color = _color((colors or {}).get(name, "gray"))
        marker = "o" if len(values) < 12 else None
        ax.plot(positions, values, color=color, marker=marker, markersize=4)
        ends.append((float(values[-1]), float(positions[-1]), name, color))
    ax.grid(axis="y")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    low, high = ax.get_ylim()
    gap = (high - low) * 0.075
    height = -np.inf
    for value, position, name, color in sorted(ends):
        height = max(value, height + gap)
        ax.annotate(
            name, (position, height), xytext=(8, 0), textcoords="offset points",
            color=color, va="center", annotation_clip=False,
        )  # fmt: skip


def pipeline(ax: Axes, stages: Sequence[tuple[str, str, str]]) -> None:
    """Draw a model as boxes in a row, from what the model says of itself.

    Args:
        ax: where to draw; its frame is removed.
        stages: (name, shape or note, color name) for each box, first to last.
    """
    ax.set_axis_off()
    ax.set_xlim(-0.05, len(stages) - 0.1)
    ax.set_ylim(0, 1)
    for i, (name, note, color) in enumerate(stages):
        box = FancyBboxPatch(
            (i, 0.3), 0.8, 0.4, boxstyle="round,pad=0.02,rounding_size=0.05",
            facecolor="none", edgecolor=_color(color), linewidth=1.6,
            mutation_aspect=1.0,
        )  # fmt: skip
        ax.add_patch(box)
        ax.text(i + 0.4, 0.5, name, ha="center", va="center", color=_color(color))
        ax.text(i + 0.4, 0.14, note, ha="center", va="center", color=COLORS["muted"], fontsize=9)
        if i + 1 < len(stages):
            ax.annotate(
                "", (i + 0.985, 0.5), (i + 0.83, 0.5),
                arrowprops={"arrowstyle": "->", "color": COLORS["muted"]},
            )  # fmt: skip


def svg(drawing: Figure, *, alt: str) -> str:
    """The figure as one `<svg>` element to stand inside a page.

    Args:
        drawing: the figure.
        alt: what is seen, in words, for those who do not see it; must not be empty.

    Returns:
        SVG text: colors of the palette are CSS variables, text is text in the page's own font,
        identifiers are unique to the figure.

    Raises:
        ValueError: if `alt` is empty.
    """
    if not alt.strip():
        raise ValueError("alt: expected a description of the figure, got an empty text")
    adaptive = 0
    for ax in drawing.axes:
        for drawn in ax.get_images():
            if drawn.get_cmap().name.startswith("trivium-"):
                drawn.set_gid(f"adapt-{adaptive}")
                adaptive += 1
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": "trivium"}):
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    text = re.sub(rf'id="{prefix}-adapt-\d+"', r'\g<0> class="trivium-adapt"', text)
    for name, color in COLORS.items():
        text = re.sub(color, f"var(--trivium-{name}, {color})", text, flags=re.IGNORECASE)
    # The width computed from matplotlib's own font holds for the page's font within a few percent.
    text = re.sub(r"font(?:-family)?: [^;\"]*'[^;\"]*(?=[;\"])", _page_font, text)
    label = html.escape(alt, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()


def show(drawing: Figure, *, alt: str) -> None:
    """Put a figure on the page.

    Args:
        drawing: the figure.
        alt: what is seen, in words; must not be empty.

    Raises:
        ValueError: if `alt` is empty.
    """
    _display(_framed(svg(drawing, alt=alt)))


def table(header: Sequence[Any], *rows: Sequence[Any]) -> None:
    """Put a table on the page.

    Args:
        header: the columns' names, in Markdown.
        rows: a cell a column, in Markdown; the first column is set left, the others right.

    Raises:
        ValueError: if a row has more or fewer cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"rows: expected {len(header)} cells, got {len(row)}: {row!r}")
    rule = [":---", *["---:"] * (len(header) - 1)]
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (header, rule, *rows)]
    from IPython.display import Markdown, display

    display(Markdown("\n".join(lines)))  # type: ignore[no-untyped-call]


def widget(tag: str, data: Mapping[str, Any], *, fallback: Figure, alt: str) -> None:
    """Put an interactive element on the page, with a static figure where it cannot run.

    The element is defined by the module `site/widgets/<tag>.js`, which reads `data` from the JSON
    inside it. In Colab, in print and without JavaScript the figure stands in its place.

    Args:
        tag: the custom element's name, such as "trivium-cnn".
        data: what the element needs. NumPy and JAX arrays, also nested, become
            {"shape", "dtype", "base64"} with little-endian float32, int32 or uint8 elements.
        fallback: the static figure.
        alt: what the static figure shows, in words; must not be empty.

    Raises:
        ValueError: if `tag` is not the name of a trivium element, or `alt` is empty.
    """
    if not re.fullmatch(r"trivium-[a-z0-9-]+", tag):
        raise ValueError(f"tag: expected a name such as 'trivium-cnn', got {tag!r}")
    text = json.dumps(_packed(data), separators=(",", ":"), ensure_ascii=False)
    text = text.replace("</", "<\\/")
    figure_html = _framed(svg(fallback, alt=alt), attributes=' slot="fallback"')
    script = f'<script type="application/json">{text}</script>'
    _display(f"<{tag}>{figure_html}{script}</{tag}>")


def shape(tag: str, **attributes: Any) -> str:
    """One SVG element.

    Args:
        tag: the element's name, such as "rect".
        attributes: its attributes, with _ for -; a name in `COLORS` becomes that color.
    """
    given = {name.replace("_", "-"): _attribute(value) for name, value in attributes.items()}
    return f"<{tag} " + " ".join(f'{name}="{value}"' for name, value in given.items()) + "/>"


class Moving:
    """A small picture that moves over and over, by CSS alone, until its reader pauses it.

    Each part is put in at rest and may be given a motion. The picture at rest is what stands in
    print and where a reader has asked for less motion, so it must tell the story by itself.
    """

    def __init__(self, width: float, height: float, *, seconds: float) -> None:
        """An empty picture of width x height pixels whose motion repeats after `seconds`.

        Raises:
            ValueError: if `seconds` is not positive.
        """
        if not seconds > 0:
            raise ValueError(f"seconds: expected a positive number, got {seconds}")
        self.width, self.height, self.seconds = width, height, seconds
        self._parts: list[tuple[Sequence[str], str, dict[float, str]]] = []

    def add(
        self, shapes: Sequence[str], *, rest: str = "", motion: Mapping[float, str] | None = None
    ) -> None:
        """Put shapes into the picture, on top of what is there.

        Args:
            shapes: SVG elements, as from `shape`.
            rest: CSS declarations of the shapes at rest.
            motion: second -> CSS declarations, which change evenly from each second to the next
                and stand still before the first and after the last.

        Raises:
            ValueError: if a second of `motion` lies outside of the picture's time.
        """
        for second in motion or {}:
            if not 0 <= second <= self.seconds:
                raise ValueError(f"motion: expected seconds from 0 to {self.seconds}, got {second}")
        self._parts.append((shapes, rest, dict(sorted((motion or {}).items()))))

    def html(self, *, name: str, alt: str) -> str:
        """The picture with its style and its switch, to stand inside a page.

        Args:
            name: what the switch is said to pause, such as "convolution".
            alt: what is seen, in words; must not be empty.

        Raises:
            ValueError: if `alt` is empty.
        """
        if not alt.strip():
            raise ValueError("alt: expected a description of the picture, got an empty text")
        label, name = html.escape(alt, quote=True), html.escape(name, quote=True)
        scope = "m" + hashlib.sha256(f"{self._parts}{label}".encode()).hexdigest()[:8]
        groups, rules = [], []
        for i, (shapes, rest, motion) in enumerate(self._parts):
            style = f' style="{_colored(rest)}"' if rest else ""
            groups.append(f'<g class="{scope}-{i}"{style}>{"".join(shapes)}</g>')
            if motion:
                frames = {second / self.seconds: look for second, look in motion.items()}
                frames = {0.0: next(iter(frames.values())), **frames}
                frames.setdefault(1.0, list(frames.values())[-1])
                steps = "".join(f"{100 * k:.4g}%{{{_colored(v)}}}" for k, v in frames.items())
                rules.append(f"@keyframes {scope}-{i}{{{steps}}}")
                timing = f"{self.seconds:g}s linear infinite"
                rules.append(f".{scope}-{i}{{animation:{scope}-{i} {timing}}}")
        style = (
            f".{scope} svg{{display:block;max-width:100%;height:auto;margin-inline:auto}}"
            f".{scope}:has(:checked) g{{animation-play-state:paused}}"
            f".{scope} label{{display:none}}"
            "@media screen and (prefers-reduced-motion:no-preference){"
            f".{scope} label{{display:block;text-align:center}}{''.join(rules)}}}"
        )
        return (
            f'<div class="trivium-moving {scope}"><style>{style}</style>'
            f'<svg role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg" '
            f'width="{self.width:g}" height="{self.height:g}" '
            f'viewBox="0 0 {self.width:g} {self.height:g}">{"".join(groups)}</svg>'
            f'<label><input type="checkbox" aria-label="Pause {name}" /> Pause</label></div>'
        )

    def show(self, *, name: str, alt: str) -> None:
        """Put the picture on the page; the arguments are those of `html`."""
        _display(self.html(name=name, alt=alt))


def glue(name: str, value: Any) -> None:
    """Record a value of the run, for the prose to quote with `{glue:text}`.

    Args:
        name: the name to quote it by, unique in the chapter.
        value: a number (of Python, NumPy or JAX) or a text.

    Raises:
        ValueError: if `value` is neither a single number nor a text.
    """
    if not isinstance(value, str | int | float):
        if np.size(value) != 1:
            raise ValueError(f"value: expected one number or a text, got shape {np.shape(value)}")
        value = np.asarray(value).item()
    from IPython.display import display

    # The form in which MyST-NB keeps glued values: stored with the run, shown only where quoted.
    prefix = "application/papermill.record/"
    bundle = {f"{prefix}text/plain": repr(value) if isinstance(value, str) else str(value)}
    metadata = {"scrapbook": {"name": name, "mime_prefix": prefix}}
    display(bundle, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]


def _color(name: str) -> str:
    if name not in COLORS:
        raise ValueError(f"color: expected one of {', '.join(COLORS)}, got {name!r}")
    return COLORS[name]


def _variable(name: str) -> str:
    return f"var(--trivium-{name}, {COLORS[name]})"


def _attribute(value: Any) -> str:
    if isinstance(value, str):
        return _variable(value) if value in COLORS else html.escape(value, quote=True)
    return f"{float(value):.4g}"


def _colored(declarations: str) -> str:
    """CSS declarations in which `fill: attention` means the color of that name."""
    pattern = rf"\b(fill|stroke): ({'|'.join(COLORS)})\b"
    return re.sub(pattern, lambda match: f"{match[1]}: {_variable(match[2])}", declarations)


def _page_font(match: re.Match[str]) -> str:
    size = re.search(r"([\d.]+px)", match.group(0))
    if match.group(0).startswith("font:") and size:
        return f"font-size: {size.group(1)}; font-family: inherit"
    return "font-family: inherit"


def _framed(content: str, *, attributes: str = "") -> str:
    # Wide figures scroll inside themselves on a narrow screen, hence reachable by keyboard.
    return (
        f'<div class="trivium-figure" tabindex="0" style="overflow-x: auto"{attributes}>'
        f"{content}</div>"
    )


def _display(content: str) -> None:
    from IPython.display import HTML, display

    display(HTML(content))  # type: ignore[no-untyped-call]


def _packed(value: Any) -> Any:
    """The value with every array replaced by shape, type and base64 text."""
    if isinstance(value, Mapping):
        return {str(key): _packed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    array = np.asarray(value)
    if array.ndim == 0:
        return array.item()
    if array.dtype not in (np.uint8, np.int32):
        array = array.astype(np.int32 if np.issubdtype(array.dtype, np.integer) else np.float32)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype.newbyteorder("=")),
        "base64": base64.b64encode(array.tobytes()).decode("ascii"),
    }
