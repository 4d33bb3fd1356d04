"""Nothing is fetched from elsewhere: MathJax and the widgets travel with the book."""

import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
ELEMENT = re.compile(r"<(trivium-[a-z0-9-]+)[\s>]")


def _copy(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    # Whole folders are replaced, so that nothing removed from the source lingers.
    for folder in ("mathjax", "widgets"):
        source, target = Path(app.srcdir, "site", folder), Path(app.outdir, folder)
        shutil.rmtree(target, ignore_errors=True)
        if source.is_dir():
            shutil.copytree(source, target)


def _load_widgets(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    for tag in sorted(set(ELEMENT.findall(context.get("body", "")))):
        if not Path(app.srcdir, "site", "widgets", f"{tag}.js").is_file():
            LOGGER.warning("<%s> has no module site/widgets/%s.js", tag, tag, location=page)
            continue
        app.add_js_file(f"../widgets/{tag}.js", type="module")
        # Reserves each widget's height before its module has loaded, so that nothing moves.
        for style in ("widgets.css", f"{tag}.css"):
            app.add_css_file(f"../widgets/{style}")


def setup(app: Sphinx) -> dict[str, bool]:
    # Jupyter Book sets it for an extension that _config.yml leaves out.
    app.add_config_value("comments_config", {}, "html")
    app.connect("builder-inited", _copy)
    app.connect("html-page-context", _load_widgets)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
