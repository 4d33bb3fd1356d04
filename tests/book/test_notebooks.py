"""A chapter's notebook reads well without Sphinx: nothing of MyST is left, nothing is lost."""

import re
from pathlib import Path

import nbformat
import pytest
from checkout import ROOT
from triviumbook.colab import Book, NotebookError, convert, parse, recorded

SAMPLE = (Path(__file__).parent / "sample.md").read_text(encoding="utf-8")
NAME = "chapters/code/sample"
VALUES = {"seconds": "1.25", "agree": "3.0", "name": "'a text'"}
REVISION = "0123456789abcdef0123456789abcdef01234567"
LEFTOVERS = (r"\{[a-zA-Z][\w:+-]*\}`", r"^ *:::", r"^ *(```|~~~)\{", r"^\([^)\s]+\)=\s*$")


def made(text=SAMPLE, *, repository="owner/name", revision=REVISION, values=VALUES):
    """The notebook of a made-up chapter."""
    return convert(ROOT / f"{NAME}.md", repository, revision, values, root=ROOT, text=text)


def prose(notebook):
    """All Markdown of a notebook."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code(notebook):
    """The sources of a notebook's code cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebook_is_valid_and_has_no_outputs():
    notebook = made()
    nbformat.validate(notebook)
    assert notebook.nbformat == 4
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    assert all(cell.execution_count is None for cell in notebook.cells if "outputs" in cell)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_nothing_of_myst_is_left():
    for pattern in LEFTOVERS:
        assert re.search(pattern, prose(made()), flags=re.MULTILINE) is None


def test_the_first_cell_installs_the_version_of_the_book():
    first = made().cells[0]
    assert first.cell_type == "code"
    assert f'%pip install -q "trivium @ git+https://github.com/owner/name@{REVISION}"' in (
        first.source
    )
    assert 'if importlib.util.find_spec("trivium") is None:' in first.source


def test_the_first_cell_installs_the_extras_that_the_front_matter_names():
    first = made(SAMPLE.replace("\nsource:", "\nextras: [gguf, tools]\nsource:", 1)).cells[0].source
    assert f'"trivium[gguf,tools] @ git+https://github.com/owner/name@{REVISION}"' in first


@pytest.mark.parametrize(("repository", "revision"), [(None, REVISION), ("owner/name", None)])
def test_without_a_repository_the_first_cell_says_what_to_do(repository, revision):
    first = made(repository=repository, revision=revision).cells[0].source
    assert "%pip" not in first
    compile(first, "first cell", "exec")
    with pytest.raises(ImportError, match=r"pip install \."):
        exec(first.replace('"trivium"', '"a_package_that_is_not_here"', 1), {})


def test_code_is_kept():
    cells = code(made())[1:]
    original = [
        cell.source
        for cell in Book(ROOT, {NAME: SAMPLE}).pages[NAME].notebook.cells
        if cell.cell_type == "code"
    ]
    assert [re.sub(r"\A# @title .*\n", "", source) for source in cells] == original


def test_hidden_cells_and_solutions_are_folded_in_colab():
    folded = [cell for cell in made().cells[1:] if cell.metadata.get("cellView") == "form"]
    assert [cell.source.split("\n")[0] for cell in folded] == [
        "import numpy as np",
        'figures.widget("trivium-cnn", {}, fallback=drawing, alt="One rising curve.")',
        "# @title Solution to Exercise 1",
        "# @title Solution to Exercise 2",
        "# @title Solution to Exercise 3",
        'figures.glue("seconds", 1.25)',
    ]


@pytest.mark.parametrize(
    "expected",
    [
        "> **In this chapter**\n>\n> **Question.** What does a chapter owe its reader?",
        "20 minutes to read, 1.2 seconds to run.",
        "**Figure 1.** A curve, with $x^2$ and LeCun et al. (1998).",
        "Figure 1 shows it; see [The mathematics](#sec-math), [The mathematics](#sec-math)",
        '<a name="sec-math"></a>\n\n## The mathematics',
        "$$\ny_i = \\sum_k w_k x_{i+k} \\tag{1}\n$$",
        "$$\na = \\boldsymbol{b} \\tag{2}\n$$",
        "By (1) and (2), as (Vaswani et al., 2017; Elman, 1990) say",
        "[Trivium](https://owner.github.io/name/chapters/preface.html)",
        "[Fig. 1](https://owner.github.io/name/chapters/preface.html#fig-strand-convolution) there",
        "It was 0.895,\n**attention** with `{x: 1.5}` and $1.5 x$.<sup>note</sup>",
        "$c^2$, <sub>2</sub>, <kbd>Enter</kbd>.",
        "<sup>note</sup> A note on $y$.",
        "> **A side note**\n>\n> In the margin.",
        "**Table 1.** Two things\n\n| one | $a\\|b$ |\n| --- | --- |\n| **two** | more |",
        "The sum is 3.000, called a text.",
        "**Figure 2.** Something to touch.",
        "> **Pitfall: shapes that do not fit**\n>\n> The listing fails.",
        "> **Exercise 1**",
        "<details>\n<summary>Solution to Exercise 1</summary>\n\nLike so:\n\n</details>",
        "> **Exercise 2** (With a title)\n>\n> Halve it.",
        "> Leave it as in Exercise 1.",
        "<summary>Is <code>this</code> a <b>question</b>?</summary>\n\nYes, 3.0.",
        "To [Trivium](https://owner.github.io/name/chapters/preface.html).",
        "## Sources\n\n- Jeffrey L. Elman. Finding structure in time.",
    ],
)
def test_prose(expected):
    assert expected in prose(made())


def test_comments_are_not_carried_over():
    assert "nobody reads" not in prose(made())


def test_without_a_repository_other_pages_are_named_not_linked():
    text = prose(made(repository=None))
    assert "To *Trivium*." in text
    assert "](http" not in text.split("## Sources")[0]


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("```{made-up}\nx\n```", r"directive \{made-up\}"),
        ("{made-up}`x`", r"role \{made-up\}"),
        ("{glue:text}`nothing:.2f`", "no value 'nothing'"),
        ("{cite:t}`nobody2000nothing`", "no entry 'nobody2000nothing'"),
        ("{numref}`fig-nothing`", "label 'fig-nothing'"),
        ("{eq}`eq-nothing`", "label 'eq-nothing'"),
        ("[](#nothing)", "label 'nothing'"),
        ("[](nothing.md)", "not a page"),
        ("[a file](nothing.csv)", "no file"),
        ("```{note}\nnever closed", "never closed"),
        ("```{code-cell} ipython3\n:tags: [raises-exception]\n1 / 0\n```", "catch the exception"),
        ("```{code-cell} ipython3\n:tags: [unheard-of]\n1\n```", "unheard-of"),
    ],
)
def test_what_has_no_form_in_a_notebook_is_an_error_that_names_the_page(new, message):
    with pytest.raises(NotebookError, match=message) as caught:
        made(SAMPLE.replace("Like so:", f"Like so:\n\n{new}"))
    assert f"{NAME}.md" in str(caught.value)


def test_a_page_outside_of_any_book_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n")
    with pytest.raises(ValueError, match=r"no _toc\.yml"):
        convert(page, None, None, {})


def test_nested_blocks_are_parsed_to_any_depth():
    text = "::::{note}\n:::{tip} Read\nInner $$x$$ text\n:::\n::::\n- item\n  $$\n  y\n  $$ (eq)\n"
    outer, item, formula = parse(text)
    assert [each.name for each in outer.children] == ["tip"]
    assert item.text == "- item"
    assert (formula.kind, formula.text, formula.name, formula.indent) == ("math", "y", "eq", "  ")


def test_the_notebooks_of_the_built_book(site):
    """Whatever make book wrote holds, too."""
    folder = ROOT / "_build" / "notebooks"
    written = sorted(folder.rglob("*.ipynb"))
    executable = [name for name, page in Book(ROOT).pages.items() if page.has_notebook]
    pages = [path.relative_to(folder).with_suffix("").as_posix() for path in written]
    assert pages == sorted(executable)
    for path in written:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        first = notebook.cells[0].source
        assert "find_spec" in first
        assert ("%pip install" in first) != ("raise ImportError" in first)
        assert all(not cell.get("outputs") for cell in notebook.cells)
        text = re.sub(r"```.*?```", "", prose(notebook), flags=re.DOTALL)
        for pattern in LEFTOVERS:
            assert re.search(pattern, text, flags=re.MULTILINE) is None, path


def test_values_come_from_the_run(tmp_path):
    glued = tmp_path / "page.glue.json"
    assert recorded(glued) == {}
    glued.write_text('{"a": {"data": {"text/plain": "0.5"}}, "b": {"data": {"text/html": "x"}}}')
    assert recorded(glued) == {"a": "0.5"}
