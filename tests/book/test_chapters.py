"""Every finished chapter keeps the contract; the plan of contents is covered."""

from pathlib import Path

import pytest
from checkout import ROOT
from contract import SOURCES, Contract
from triviumbook.colab import Book, Page

BOOK = Book(ROOT)
CHAPTERS = sorted(
    name
    for name in BOOK.pages
    if name != "chapters/preface" and not name.startswith("chapters/appendix/")
)
SAMPLE = (Path(__file__).parent / "sample.md").read_text(encoding="utf-8")

# What each page of the finished book covers of the article that it grows out of.
COVERS = {
    "chapters/concepts/background": {"S1", "S2"},
    "chapters/concepts/neural-networks": {"S3"},
    "chapters/concepts/deep-learning": {"S4"},
    "chapters/concepts/three-families": {"S5"},
    "chapters/mathematics/convolution": {"S6"},
    "chapters/mathematics/recurrence": {"S7"},
    "chapters/mathematics/attention": {"S8"},
    "chapters/code/cnn": {"S9"},
    "chapters/code/lstm": {"S10"},
    "chapters/code/transformer": {"S11"},
    "chapters/applications/image-classification": {"S12"},
    "chapters/applications/object-detection": {"S12"},
    "chapters/applications/semantic-segmentation": {"S12"},
    "chapters/applications/text-classification": {"S13"},
    "chapters/applications/sequence-labelling": {"S13"},
    "chapters/applications/machine-translation": {"S13"},
    "chapters/tools/tools": {"S14"},
    "chapters/outlook/structures-since": {"S15"},
    "chapters/appendix/faq": {"S16"},
}


def owed(text: str) -> list[str]:
    """What a made-up chapter owes."""
    book = Book(ROOT, {"chapters/code/sample": text})
    page: Page = book.pages["chapters/code/sample"]
    return Contract(page, set(book.works.entries)).violations()


@pytest.mark.parametrize("name", CHAPTERS)
def test_contract(name):
    found = Contract(BOOK.pages[name], set(BOOK.works.entries)).violations()
    assert not found, "\n".join(found)


def test_every_page_of_the_contents_exists():
    assert [name for name in BOOK.pages if not (ROOT / f"{name}.md").is_file()] == []


def test_ids_are_valid():
    for name, page in BOOK.pages.items():
        assert set(page.notebook.metadata.get("source", [])) <= SOURCES, name


@pytest.mark.parametrize("name", sorted(set(BOOK.pages) & set(COVERS)))
def test_finished_pages_cover_what_was_planned(name):
    assert set(BOOK.pages[name].notebook.metadata.get("source", [])) >= COVERS[name]


def test_the_plan_covers_everything():
    assert set().union(*COVERS.values()) == SOURCES


def test_a_complete_chapter_owes_nothing():
    assert owed(SAMPLE) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("source: [S9]", "source: []", "source must list"),
        ("source: [S9]", "source: [S99]", "unknown ids"),
        ("family: convolution", "family: other", "family must be"),
        ("minutes: 20", "minutes: soon", "minutes (to read)"),
        ("In this chapter", "In this one", "the first box"),
        ("**You need** nothing.", "", "**You need**"),
        ("{glue:text}`seconds:.1f` seconds", "some seconds", "seconds to run"),
        ("## A picture\n", "## A picture\n\n$$a$$ (eq-early)\n", "before the first figure"),
        ("$$ (eq-sample)", "$$", "no label"),
        ("np.allclose(", "np.array_equal(", "two implementations agree"),
        ("from trivium import figures", "import figures", "imported from trivium"),
        (', alt="One rising curve.")\n```\n\n{numref}`fig-sample`',
         ")\n```\n\n{numref}`fig-sample`", "no alternative text"),
        ('alt="One rising curve.")\n```\n\n{numref}`fig-widget`', 'alt=" ")\n```\n\n'
         "{numref}`fig-widget`", "no alternative text"),
        ("name: fig-widget", "title: fig-widget", "no caption or no name"),
        ("{numref}`fig-widget` can", "It can", "never speaks of fig-widget"),
        ("Double it.", "Double 0.5 of it.", "typed in prose: '0.5'"),
        ("The listing fails.", "The listing fails in 12 % of cases.", "typed in prose: '12 %'"),
        ("A curve, with", "A curve at 97.5, with", "typed in prose: '97.5'"),
        ("{cited}`0.895`", "0.895", "typed in prose: '0.895'"),
        ("  - more", "  - 1.25 more", "typed in prose: '1.25'"),
        ("And that?", "And 3.5?", "typed in prose: '3.5'"),
        ("figures.widget(", "figures.gadget(", "nothing to touch"),
        ("Pitfall: shapes", "Beware: shapes", "begins with Pitfall"),
        (":::\n\n```{code-cell} ipython3\ntry:", ":::\n\n## Apart\n\n```{code-cell} ipython3\ntry:",
         "no code shows the pitfall"),
        ("```{exercise}\n:label: ex-three\n", "```{note}\n", "three exercises"),
        ("```{solution-start} ex-two\n:class: dropdown", "```{solution-start} ex-two",
         "not folded"),
        ("{solution-start} ex-two", "{solution-start} ex-one", "'ex-two' has no solution"),
        ("```{code-cell} ipython3\nprint(2 / 2)", "```python\nprint(2 / 2)", "executes no code"),
        ("## Check yourself", "## Check", "'## Check yourself' is missing"),
        (":::{dropdown} And this?", ":::{note} And this?", "needs three"),
        ("lecun1998gradient", "nobody2000nothing", "has no entry"),
        ("## Where this leads", "## Onwards", "'## Where this leads' is missing"),
        ("To [](../preface.md).", "On.", "names no source and no page"),
        ("## Exercises", "# Exercises", "one title"),
    ],
)  # fmt: skip
def test_what_is_missing_is_found(old, new, expected):
    assert SAMPLE.count(old) >= 1
    found = owed(SAMPLE.replace(old, new, 1))
    assert any(expected in each for each in found), found


def test_a_chapter_without_citations_is_found():
    found = owed(SAMPLE.replace("{cite:", "{ref:"))
    assert any("nothing is cited" in each for each in found), found


def test_what_is_not_prose_may_have_decimals():
    text = "`1.5`, $2.5$, [a](https://x.org/3.5), https://x.org/4.5, {glue:text}`a:.1f`, S9, v1"
    assert owed(SAMPLE.replace("Double it.", f"Double it. {text}")) == []
