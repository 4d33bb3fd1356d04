"""Author-year citations: Vaswani et al. (2017) in text, (Vaswani et al., 2017) in parentheses.

Every page that cites ends with the works that it cites, each linked to the whole bibliography.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pybtex.plugin
import sphinxcontrib.bibtex.plugin
from docutils import nodes
from pybtex.database import Entry
from pybtex.style.formatting.unsrt import Style as UnsortedStyle
from pybtex.style.labels import BaseLabelStyle
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinxcontrib.bibtex.nodes import bibliography
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle
from sphinxcontrib.bibtex.transforms import node_text_transform


def authors(entry: Entry) -> str:
    """The authors' family names as they stand in a citation: one, two, or the first "et al."."""
    people = entry.persons.get("author") or entry.persons.get("editor") or []
    names = [" ".join([*person.prelast_names, *person.last_names]).strip("{}") for person in people]
    if not names:
        return entry.fields.get("organization") or entry.fields["title"].strip("{}")
    if len(names) > 2:
        return f"{names[0]} et al."
    return " and ".join(names)


class AuthorYearLabels(BaseLabelStyle):
    """Labels of the list; unique, because the same authors publish twice a year."""

    def format_labels(self, sorted_entries: Iterable[Entry]) -> Iterator[str]:
        seen: dict[str, int] = {}
        for entry in sorted_entries:
            label = f"{authors(entry)} {entry.fields.get('year', '')}".strip()
            seen[label] = seen.get(label, 0) + 1
            yield label if seen[label] == 1 else f"{label} ({seen[label]})"


class BibliographyStyle(UnsortedStyle):
    """The list, sorted by author, year and title."""

    default_sorting_style = "author_year_title"
    default_label_style = AuthorYearLabels


def _round() -> BracketStyle:
    return BracketStyle(left="(", right=")")


@dataclass
class ReferenceStyle(AuthorYearReferenceStyle):
    """Citations in the text, in round brackets."""

    bracket_textual: BracketStyle = field(default_factory=_round)
    bracket_parenthetical: BracketStyle = field(default_factory=_round)
    bracket_author: BracketStyle = field(default_factory=_round)
    bracket_label: BracketStyle = field(default_factory=_round)
    bracket_year: BracketStyle = field(default_factory=_round)


def _list_items(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Docutils makes a list whose children are no list items, which screen readers pass over."""
    if "citation-list" in context.get("body", ""):
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


class page_sources(nodes.General, nodes.Element):
    """Stands for the list of a page's sources until all pages have been read."""


class PlaceForSources(SphinxTransform):
    """Give a page that cites a last section, unless it holds the bibliography itself."""

    # After everything that makes nodes; before the sections are collected and numbered.
    default_priority = 850

    def apply(self, **kwargs: Any) -> None:
        cites = any(
            reference.get("refdomain") == "cite"
            for reference in self.document.findall(addnodes.pending_xref)
        )
        title = next(iter(self.document.findall(nodes.title)), None)
        if cites and title is not None and not any(self.document.findall(bibliography)):
            section = nodes.section(
                "", nodes.title("", "Sources"), page_sources(), ids=["page-sources"]
            )
            title.parent += section


class SourcesOfThePage(SphinxPostTransform):
    """Fill that section with the works that the page cites."""

    # Before the references are resolved, so that the links to the bibliography are resolved too.
    default_priority = 6
    backend = pybtex.plugin.find_plugin("pybtex.backends", "docutils")()

    def run(self, **kwargs: Any) -> None:
        for place in list(self.document.findall(page_sources)):
            place.replace_self(self._list())

    def _list(self) -> nodes.bullet_list:
        domain: Any = self.env.get_domain("cite")
        page = self.env.docname
        cited = {
            target.key
            for reference in domain.citation_refs
            if reference.docname == page
            for target in reference.targets
        }
        works = {each.key: each for each in domain.citations if each.key in cited}
        listed = nodes.bullet_list()
        for work in works.values():
            paragraph = self.backend.paragraph(work.formatted_entry)
            node_text_transform(paragraph)
            place = self.app.builder.get_relative_uri(page, work.bibliography_key.docname)
            label = f"{authors(work.entry)} ({work.entry.fields.get('year', '')})"
            link = nodes.reference(
                label, label, internal=True, refuri=f"{place}#{work.citation_id}"
            )
            paragraph.insert(0, [link, nodes.Text(". ")])
            listed += nodes.list_item("", paragraph)
        return listed


def setup(app: Sphinx) -> dict[str, bool]:
    pybtex.plugin.register_plugin("pybtex.style.formatting", "trivium", BibliographyStyle)
    sphinxcontrib.bibtex.plugin.register_plugin(
        "sphinxcontrib.bibtex.style.referencing", "trivium", ReferenceStyle
    )
    app.add_node(page_sources)
    app.add_transform(PlaceForSources)
    app.add_post_transform(SourcesOfThePage)
    app.connect("html-page-context", _list_items)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
