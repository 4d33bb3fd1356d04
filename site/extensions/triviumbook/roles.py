"""The few roles of the book's own.

{cited}`0.895` marks a number that was not computed here but is quoted from a source, a version or
an address. Numbers in prose otherwise come from the run; tests/book/test_chapters.py checks it.

{convolution}`text`, {recurrence}`text`, {attention}`text` set text in its family's color.
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

FAMILIES = ("convolution", "recurrence", "attention")


class Cited(SphinxRole):
    """A number quoted from a source."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        return [nodes.inline(self.rawtext, self.text, classes=["trivium-cited"])], []


class Family(SphinxRole):
    """Text in the color of one family."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        classes = ["trivium-family", f"trivium-family-{self.name}"]
        return [nodes.inline(self.rawtext, self.text, classes=classes)], []


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("cited", Cited())
    for family in FAMILIES:
        app.add_role(family, Family())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
