"""What each page says of itself: description, social card, family, links to its source."""

import html
from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.config import Config

from trivium import figures
from triviumbook.repository import book_url, repository
from triviumbook.roles import FAMILIES

CARD = "_static/card.png"


def _link_repository(app: Sphinx, config: Config) -> None:
    """Buttons for source, edits and issues, where there is a repository to point at."""
    name = repository(Path(app.srcdir))
    config.html_theme_options.update(
        repository_url=f"https://github.com/{name}" if name else "",
        repository_branch="main",
        use_repository_button=bool(name),
        use_edit_page_button=bool(name),
        use_issues_button=bool(name),
    )
    if name and not config.html_baseurl:
        config.html_baseurl = book_url(name)


def _badge(app: Sphinx, document: nodes.document) -> None:
    """Under a chapter's title: its family and the minutes to read it, from the front matter."""
    metadata = app.env.metadata[app.env.docname]
    family, minutes = metadata.get("family"), metadata.get("minutes")
    title = next(iter(document.findall(nodes.title)), None)
    if title is None or not (family or minutes):
        return
    line = nodes.paragraph(classes=["trivium-badges"])
    if family in FAMILIES:
        classes = ["trivium-badge", f"trivium-family-{family}"]
        line += nodes.inline(family, family, classes=classes)
    if minutes:
        text = f"{minutes} minutes to read"
        line += nodes.inline(text, text, classes=["trivium-badge"])
    title.parent.insert(title.parent.index(title) + 1, line)


def _description(metadata: dict[str, Any], doctree: nodes.document) -> str:
    if metadata.get("description"):
        return str(metadata["description"])
    for paragraph in doctree.findall(nodes.paragraph):
        if "trivium-badges" in paragraph["classes"]:
            continue
        text = " ".join(paragraph.astext().split())
        return text if len(text) <= 200 else text[:200].rsplit(" ", 1)[0] + " …"
    return ""


def _draw_card(app: Sphinx, exception: Exception | None) -> None:
    """The picture that goes with a link to the book, where the book's address is known."""
    if exception is None and app.builder.format == "html" and app.config.html_baseurl:
        card().savefig(Path(app.outdir, CARD), dpi=100, metadata={"Software": None})


def card() -> Figure:
    """The three strands over the book's name, 1200 x 630 pixels at 100 to the inch."""
    drawing, ax = figures.figure(12, 6.3)
    drawing.set_layout_engine("none")
    drawing.set_facecolor(figures.COLORS["paper"])
    ax.set_position((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set_xlim(0, 12)
    ax.set_ylim(0, 6.3)
    x = np.linspace(0.9, 11.1, 400)
    for i, family in enumerate(FAMILIES):
        # As in the logo, each goes up and down a third of a turn behind the one before.
        y = 4.5 + 0.85 * np.sin(x * 1.1 - i * 2 * np.pi / 3)
        color = figures.COLORS[family]
        ax.plot(x, y, color=color, linewidth=16, solid_capstyle="round")
        ax.text(0.9 + 3.7 * i, 0.95, family, color=color, fontsize=34, va="center")
    ax.text(0.9, 2.2, "Trivium", fontsize=76, weight="bold", va="center")
    return drawing


def _describe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if doctree is None or page not in app.env.metadata:
        return
    title = app.env.titles[page].astext()
    description = _description(app.env.metadata[page], doctree)
    tags = {
        'name="description"': description,
        'property="og:type"': "article",
        'property="og:site_name"': "Trivium",
        'property="og:title"': title,
        'property="og:description"': description,
        'name="twitter:card"': "summary",
        'name="twitter:title"': title,
        'name="twitter:description"': description,
    }
    if context.get("pageurl"):
        tags['property="og:url"'] = context["pageurl"]
    if app.config.html_baseurl:
        # Only an absolute address is followed; without one there is no picture.
        tags |= {
            'property="og:image"': f"{app.config.html_baseurl.rstrip('/')}/{CARD}",
            'property="og:image:width"': "1200",
            'property="og:image:height"': "630",
            'property="og:image:alt"': "Trivium: three strands, convolution, recurrence, attention",
            'name="twitter:card"': "summary_large_image",
        }
    lines = [
        f'<meta {key} content="{html.escape(value, quote=True)}" />'
        for key, value in tags.items()
        if value
    ]
    context["metatags"] = "\n".join([context.get("metatags", ""), *lines])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", _link_repository)
    app.connect("doctree-read", _badge)
    app.connect("html-page-context", _describe, priority=900)
    app.connect("build-finished", _draw_card)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
