"""What each page says of itself: description, social card, family, links to its source."""

import html
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from triviumbook.repository import book_url, repository
from triviumbook.roles import FAMILIES


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
    return {"parallel_read_safe": True, "parallel_write_safe": True}
