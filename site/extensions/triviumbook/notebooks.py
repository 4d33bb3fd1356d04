"""Writes one notebook a chapter to `_build/notebooks`, offers it for download, links to Colab."""

import shutil
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from triviumbook.colab import NotebookError, Page, convert, recorded
from triviumbook.repository import colab_url, repository, revision

LOGGER = logging.getLogger(__name__)


def _write(app: Sphinx, env: BuildEnvironment) -> None:
    """Write the notebooks when every chapter has been read, hence run."""
    if app.builder.format != "html":
        return
    root, build = Path(app.srcdir), Path(app.outdir).parent
    shutil.rmtree(build / "notebooks", ignore_errors=True)
    where, commit = repository(root), revision(root)
    for page in sorted(env.found_docs):
        if not env.doc2path(page).endswith(".md") or not Page(root, page).has_notebook:
            continue
        values = recorded(build / "jupyter_execute" / f"{page}.glue.json")
        try:
            notebook = convert(root / f"{page}.md", where, commit, values, root=root)
        except NotebookError as error:
            LOGGER.warning("no notebook: %s", error, location=page)
            continue
        path = build / "notebooks" / f"{page}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)


def _offer(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Put the notebook among the page's downloads."""
    path = Path(app.outdir).parent / "notebooks" / f"{page}.ipynb"
    if doctree is not None and path.is_file():
        target = Path(app.outdir, "_sources", f"{page}.ipynb")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        context["ipynb_source"] = f"{page}.ipynb"


def _launch(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Link to Colab: no button rather than a dead one."""
    name = repository(Path(app.srcdir))
    if name and context.get("ipynb_source"):
        button = {
            "type": "link",
            "url": colab_url(name, page),
            "text": "Open in Colab",
            "tooltip": "Run this chapter in Google Colab",
            "icon": "fas fa-rocket",
            "label": "launch-colab",
        }
        context["header_buttons"].insert(0, button)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("env-check-consistency", _write)
    # The theme makes the list of downloads at 501 and the list of buttons is drawn after all.
    app.connect("html-page-context", _offer, priority=400)
    app.connect("html-page-context", _launch, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
