"""The tables of "About this build", true for a build whose chapters came from the cache.

{build-record} versions | build | chapters

A chapter that the cache answered was executed earlier, maybe at another commit or on another
machine. What was true then is written beside the cache when the chapter runs, and read back when
it does not.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from triviumbook.repository import file_url, modified, repository, revision

PACKAGES = (
    "trivium", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "matplotlib",
    "keras", "scikit-learn", "tokenizers", "safetensors", "jupyter-book", "sphinx", "myst-nb",
)  # fmt: skip
STARTED = time.time()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    if sys.platform == "darwin":
        query = ["sysctl", "-n", "machdep.cpu.brand_string"]
        run = subprocess.run(query, capture_output=True, text=True, check=False)
        if run.stdout.strip():
            return run.stdout.strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(1)
def machine() -> dict[str, str]:
    """The machine this process runs on: processor, cores, memory, accelerator, system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    # In a process of its own: JAX would claim the accelerator's memory for as long as we live.
    question = (
        "import collections, jax; found = [d for d in jax.devices() if d.platform != 'cpu']; "
        "kinds = collections.Counter(d.device_kind for d in found); "
        "print(', '.join(f'{n} x {kind}' for kind, n in kinds.items()) or 'none')"
    )
    answer = subprocess.run(
        [sys.executable, "-c", question], capture_output=True, text=True, check=True
    )
    return {
        "processor": _processor(),
        "cores": str(_cores()),
        "memory": f"{memory:.0f} GiB",
        "accelerator": answer.stdout.strip().splitlines()[-1],
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def in_words(about: dict[str, str]) -> str:
    """A machine in one line."""
    accelerator = "" if about["accelerator"] == "none" else f", {about['accelerator']}"
    return f"{about['processor']}, {about['cores']} cores, {about['memory']}{accelerator}"


def _records(app: Sphinx) -> Path:
    return Path(app.config.nb_execution_cache_path) / "records.json"


def _read(app: Sphinx) -> dict[str, Any]:
    path = _records(app)
    return json.loads(path.read_text()) if path.is_file() else {}


def _key(page: str, run: dict[str, Any]) -> str:
    # The seconds, to the last digit, identify the run that the cache remembers.
    return f"{page} {run['runtime']!r}"


def _note(app: Sphinx, document: nodes.document) -> None:
    """Write down where and when a chapter ran, if it ran in this build."""
    page = app.env.docname
    run = NbMetadataCollector.get_exec_data(app.env, page)
    if not run or not run["succeeded"]:
        return
    records = _read(app)
    key = _key(page, run)
    if key in records or run["mtime"] < STARTED:
        return
    root = Path(app.srcdir)
    records[key] = {
        "executed": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision(root),
        "modified": modified(root),
        "machine": machine(),
    }
    path = _records(app)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records, indent=1))


class build_record(nodes.General, nodes.Element):
    """Stands for a table until every chapter has been read."""


class BuildRecord(SphinxDirective):
    """Place one of the tables."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        what = directives.choice(self.arguments[0], ("versions", "build", "chapters"))
        return [build_record(what=what)]


def _table(header: list[str], rows: list[list[nodes.Node | str]]) -> nodes.table:
    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=1) for _ in header]

    def row(cells: list[nodes.Node | str]) -> nodes.row:
        line = nodes.row()
        for cell in cells:
            paragraph = nodes.paragraph()
            paragraph += nodes.Text(cell) if isinstance(cell, str) else cell
            line += nodes.entry("", paragraph)
        return line

    group += nodes.thead("", row(list(header)))
    group += nodes.tbody("", *[row(cells) for cells in rows])
    return nodes.table("", group, classes=["colwidths-auto"])


def _commit(app: Sphinx, commit: str | None, changed: bool) -> nodes.Node:
    if not commit:
        return nodes.Text("not under version control")
    text = commit[:10] + (" with local changes" if changed else "")
    name = repository(Path(app.srcdir))
    if not name:
        return nodes.literal(text, text)
    address = file_url(name, commit, "").replace("/blob/", "/tree/").rstrip("/")
    return nodes.reference(text, text, refuri=address)


class PlaceRecords(SphinxPostTransform):
    """Fill in the tables, when every chapter has been read."""

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        for place in list(self.document.findall(build_record)):
            place.replace_self(getattr(self, f"_{place['what']}")())

    def _order(self) -> list[str]:
        """Pages as the table of contents lists them."""
        pages: list[str] = []
        waiting = [self.env.config.root_doc]
        while waiting:
            page = waiting.pop(0)
            pages.append(page)
            waiting = self.env.toctree_includes.get(page, []) + waiting
        return pages

    def _versions(self) -> nodes.table:
        rows: list[list[nodes.Node | str]] = [["Python", platform.python_version()]]
        for name in PACKAGES:
            try:
                rows.append([name, importlib.metadata.version(name)])
            except importlib.metadata.PackageNotFoundError:
                rows.append([name, "not installed"])
        return _table(["Package", "Version"], rows)

    def _build(self) -> nodes.table:
        root = Path(self.app.srcdir)
        about = machine()
        rows: list[list[nodes.Node | str]] = [
            ["Built", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"],
            ["Commit", _commit(self.app, revision(root), modified(root))],
            ["Processor", about["processor"]],
            ["Cores", about["cores"]],
            ["Memory", about["memory"]],
            ["Accelerator", about["accelerator"]],
            ["System", about["system"]],
        ]
        return _table(["What", "This build"], rows)

    def _chapters(self) -> nodes.table:
        records = _read(self.app)
        rows: list[list[nodes.Node | str]] = []
        total = 0.0
        for page in self._order():
            run = NbMetadataCollector.get_exec_data(self.env, page)
            if not run or run["runtime"] is None:
                continue
            total += run["runtime"]
            note = records.get(_key(page, run))
            title = self.env.titles[page].astext()
            link = nodes.reference(
                title, title, internal=True,
                refuri=self.app.builder.get_relative_uri(self.env.docname, page),
            )  # fmt: skip
            if note is None:
                when = datetime.fromtimestamp(run["mtime"], UTC).isoformat(timespec="seconds")
                commit: nodes.Node | str = "not recorded"
                where = "not recorded"
            else:
                when = note["executed"]
                commit = _commit(self.app, note["revision"], note["modified"])
                where = in_words(note["machine"])
            rows.append([link, f"{run['runtime']:.1f}", f"{when[:16]}".replace("T", " "),
                         commit, where])  # fmt: skip
        rows.append(["All", f"{total:.1f}", "", "", ""])
        return _table(["Chapter", "Seconds", "Executed (UTC)", "At commit", "On"], rows)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(build_record)
    app.add_directive("build-record", BuildRecord)
    app.add_post_transform(PlaceRecords)
    app.connect("doctree-read", _note)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
