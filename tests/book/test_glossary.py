"""The glossary: one sentence a term, the chapter that defines it, and its Chinese term."""

import re

import pytest
from checkout import ROOT
from triviumbook.colab import Book

PAGE = ROOT / "chapters/appendix/glossary.md"
ENTRY = re.compile(r"^(?P<term>\S.*)\n  (?P<text>.+(?:\n  .+)*)$", re.MULTILINE)
TAIL = re.compile(
    r"\(\[[^\]]+\]\((?P<page>[^)]+)\.md\); \[(?P<chinese>[^\]]+)\]\{\.language-zh\}\)$"
)


def entries():
    """(term, text) for each entry of the page."""
    body = re.search(r"```\{glossary\}\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [
        (match["term"], " ".join(match["text"].split())) for match in ENTRY.finditer(body.group(1))
    ]


def test_terms_are_in_order_and_unique():
    terms = [term.casefold() for term, _ in entries()]
    assert len(terms) > 100
    assert terms == sorted(set(terms))


@pytest.mark.parametrize(("term", "text"), entries())
def test_each_entry_is_complete(term, text):
    tail = TAIL.search(text)
    assert tail, "the entry must end with ([Chapter](page.md); [Chinese]{.language-zh})"
    page = (PAGE.parent / tail["page"]).resolve().relative_to(ROOT).as_posix()
    assert page in Book(ROOT).pages
    assert re.search(r"[\u4e00-\u9fff]", tail["chinese"])
    sentence = text[: tail.start()].strip()
    assert sentence.endswith(".")
    assert len(re.findall(r"\.(?:\s|$)", sentence)) == 1, "one sentence"


def test_the_chinese_is_marked_as_chinese_on_the_page(site):
    html = (site / "chapters/appendix/glossary.html").read_text(encoding="utf-8")
    assert len(re.findall(r'<span lang="zh"|<span[^>]* lang="zh"', html)) == len(entries())
