"""What every chapter owes its reader, as far as a program can check it.

Numbers. No number with a decimal point and no percentage is typed in prose: it comes from the run
(``{glue:text}`name:.3f` ``). A number that is quoted from elsewhere, and a version, is marked as
such: ``{cited}`0.895` ``, ``{cited}`3.11` ``. Code, formulas, roles and addresses are not prose.
"""

import ast
import re
import tomllib
from collections.abc import Iterator

from checkout import ROOT
from triviumbook.colab import FAMILIES, IMAGE, INLINE_MATH, ROLE, Block, Page, walk

FAMILY_NAMES = {*FAMILIES, "all"}  # "all" where a chapter is of no single family
SOURCES = {f"S{i}" for i in range(1, 17)}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
OPENING = ("Question", "You will be able to", "You need", "Time")
TYPED = re.compile(r"(?<![\w.])\d+(?:,\d{3})*\.\d+(?![\w.]*\.\w)|(?<![\w.])\d+(?:\.\d+)?\s?%")


def prose(text: str) -> str:
    """The text without what is not prose: code, formulas, roles, addresses."""
    text = ROLE.sub(" ", text)
    text = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", " ", text, flags=re.DOTALL)
    text = INLINE_MATH.sub(" ", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"<?https?://\S+", " ", text)
    return re.sub(r"<[^<>]+>", " ", text)


def calls(source: str, name: str) -> Iterator[ast.Call]:
    """Calls of a function by its last name."""
    lines = [line for line in source.split("\n") if not line.lstrip().startswith(("%", "!"))]
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.Call):
            called = node.func
            if getattr(called, "attr", getattr(called, "id", "")) == name:
                yield node


def figure_options(cell) -> dict[str, str]:
    """The `mystnb: figure:` options of a code cell."""
    return cell.metadata.get("mystnb", {}).get("figure", {})


class Contract:
    """Checks one chapter; `violations` says in words what it still owes."""

    def __init__(self, page: Page, works: set[str]) -> None:
        self.page = page
        self.works = works
        self.cells = page.cells
        self.blocks = [block for _, blocks in self.cells for block in walk(blocks)]
        self.sources = [cell.source for cell, _ in self.cells if cell.cell_type == "code"]
        self.everything = "\n".join(
            [cell.source for cell, _ in self.cells if cell.cell_type == "markdown"]
            + [str(figure_options(cell).get("caption", "")) for cell, _ in self.cells]
        )

    def violations(self) -> list[str]:
        """What is missing or wrong, in the order of the contract."""
        checks = (
            self.front_matter, self.opening, self.picture_first, self.equations, self.agreement,
            self.figures, self.numbers, self.widget, self.pitfalls, self.exercises,
            self.self_check, self.citations, self.where_this_leads, self.one_title,
        )  # fmt: skip
        return [f"{self.page.name}: {found}" for check in checks for found in check()]

    def front_matter(self) -> Iterator[str]:
        metadata = self.page.notebook.metadata
        source = metadata.get("source")
        if not isinstance(source, list) or not source:
            yield "front matter: source must list what the chapter covers, as in [S9]"
        elif wrong := set(source) - SOURCES:
            yield f"front matter: source has unknown ids {sorted(wrong)}"
        if metadata.get("family") not in FAMILY_NAMES:
            yield f"front matter: family must be one of {sorted(FAMILY_NAMES)}"
        minutes = metadata.get("minutes")
        if not isinstance(minutes, int) or minutes < 1:
            yield "front matter: minutes (to read) must be a whole number"
        extras = metadata.get("extras", [])
        if not isinstance(extras, list) or set(extras) - EXTRAS:
            yield f"front matter: extras must list extras of pyproject.toml, not {extras}"
        if "kernelspec" not in metadata:
            yield "front matter: kernelspec is missing"

    def opening(self) -> Iterator[str]:
        first = next((block for block in self.blocks if block.kind == "directive"), None)
        if first is None or (first.name, first.argument) != ("admonition", "In this chapter"):
            yield "the first box must be ```{admonition} In this chapter"
            return
        for title in OPENING:
            if not re.search(rf"\*\*{title}[.:]?\*\*", first.text):
                yield f"the opening box must say **{title}**"
        time = first.text.partition("**Time")[2]
        if "{glue:text}" not in time:
            yield "the opening box must take the seconds to run from the run, with {glue:text}"

    def picture_first(self) -> Iterator[str]:
        for cell, blocks in self.cells:
            if cell.cell_type == "code" and figure_options(cell):
                return
            for block in walk(blocks):
                if block.kind == "directive" and block.name in ("figure", "glue:figure"):
                    return
                if block.kind == "math" or block.name == "math":
                    yield "a formula stands before the first figure"
                    return
        yield "there is no figure"

    def equations(self) -> Iterator[str]:
        labeled = 0
        for _, blocks in self.cells:
            for block in blocks:
                if block.kind == "math" or (block.kind == "directive" and block.name == "math"):
                    label = block.options.get("label") if block.kind == "directive" else block.name
                    labeled += bool(label)
                    if not label:
                        yield f"an equation has no label, hence no number: {block.text[:40]!r}"
        if not labeled:
            yield "there is no numbered equation"

    def agreement(self) -> Iterator[str]:
        if not any(re.search(r"assert.*allclose", source) for source in self.sources):
            yield "no cell asserts that two implementations agree (allclose)"
        if not any("from trivium" in source or "import trivium" in source
                   for source in self.sources):  # fmt: skip
            yield "nothing is imported from trivium"

    def figures(self) -> Iterator[str]:
        for cell, blocks in self.cells:
            if cell.cell_type == "code":
                yield from self._drawn(cell)
            for block in walk(blocks):
                if block.kind == "directive" and block.name == "figure":
                    yield from self._included(block)
                if block.kind == "text":
                    for image in IMAGE.finditer(block.text):
                        if not image["alt"].strip():
                            yield f"the image {image['target']} has no alternative text"

    def _drawn(self, cell) -> Iterator[str]:
        shown = [*calls(cell.source, "show"), *calls(cell.source, "widget")]
        options = figure_options(cell)
        for call in shown:
            alt = next((each.value for each in call.keywords if each.arg == "alt"), None)
            if alt is None or (isinstance(alt, ast.Constant) and not str(alt.value).strip()):
                yield f"a figure has no alternative text: {cell.source[:40]!r}"
        if shown and not (options.get("caption") and options.get("name")):
            yield f"a figure has no caption or no name: {cell.source[:40]!r}"
        if options.get("name"):
            yield from self._spoken_of(str(options["name"]))

    def _included(self, block: Block) -> Iterator[str]:
        if not block.options.get("alt"):
            yield f"the figure {block.argument} has no alternative text"
        if not block.children or not block.options.get("name"):
            yield f"the figure {block.argument} has no caption or no name"
        else:
            yield from self._spoken_of(block.options["name"])

    def _spoken_of(self, name: str) -> Iterator[str]:
        if not re.search(rf"\{{(?:num)?ref\}}`[^`]*\b{re.escape(name)}\b[^`]*`", self.everything):
            yield f"the text never speaks of {name}"

    def numbers(self) -> Iterator[str]:
        captions = [str(figure_options(cell).get("caption", "")) for cell, _ in self.cells]
        texts = [block.text for block in self.blocks if block.kind in ("text", "heading")]
        named = {"code-block", "figure", "image", "glue:figure"}  # by a language or a file
        titles = [
            block.argument
            for block in self.blocks
            if block.kind == "directive" and block.name not in named
        ]
        tables = [block.text for block in self.blocks if block.name == "list-table"]
        for text in [*texts, *titles, *tables, *captions]:
            for match in TYPED.finditer(prose(text)):
                yield f"a number is typed in prose: {match[0]!r} (use {{glue:text}} or {{cited}})"

    def widget(self) -> Iterator[str]:
        if not any(list(calls(source, "widget")) for source in self.sources):
            yield "there is nothing to touch: no call of figures.widget"

    def pitfalls(self) -> Iterator[str]:
        count = 0
        for index, (_, blocks) in enumerate(self.cells):
            for place, block in enumerate(blocks):
                if block.kind != "directive" or not block.argument.startswith("Pitfall"):
                    continue
                count += 1
                after = all(each.kind != "heading" for each in blocks[place:])
                before = all(each.kind != "heading" for each in blocks[:place])
                near = [self.cells[index + 1 : index + 2]] * after
                near += [self.cells[max(index - 1, 0) : index]] * before
                if not any(each and each[0][0].cell_type == "code" for each in near):
                    yield f"no code shows the pitfall {block.argument!r}"
        if not count:
            yield "there is no box whose title begins with Pitfall"

    def exercises(self) -> Iterator[str]:
        labels = [
            block.options.get("label", "")
            for block in self.blocks
            if block.name in ("exercise", "exercise-start")
        ]
        if len(labels) < 3:
            yield f"three exercises are asked for, there are {len(labels)}"
        solved: dict[str, int] = {}
        current = None
        for cell, blocks in self.cells:
            if cell.cell_type == "code" and current is not None:
                solved[current] += 1
            for block in blocks:
                if block.name in ("solution-start", "solution"):
                    if "dropdown" not in block.options.get("class", "").split():
                        yield f"the solution of {block.argument} is not folded (class dropdown)"
                    solved[block.argument] = 0
                    current = block.argument if block.name == "solution-start" else None
                elif block.name == "solution-end":
                    current = None
        for label in labels:
            if label not in solved:
                yield f"the exercise {label!r} has no solution"
            elif not solved[label]:
                yield f"the solution of {label!r} executes no code"

    def section(self, title: str) -> list[Block] | None:
        """The blocks between a second-level heading and the next."""
        top = [block for _, blocks in self.cells for block in blocks]
        for i, block in enumerate(top):
            if block.kind == "heading" and (block.name, block.text) == ("##", title):
                rest = top[i + 1 :]
                end = next(
                    (j for j, each in enumerate(rest) if each.kind == "heading"
                     and len(each.name) <= 2), len(rest),
                )  # fmt: skip
                return rest[:end]
        return None

    def self_check(self) -> Iterator[str]:
        section = self.section("Check yourself")
        if section is None:
            yield "the section '## Check yourself' is missing"
            return
        folded = [block for block in section if block.name == "dropdown" and block.text.strip()]
        if len(folded) < 3:
            yield f"'Check yourself' needs three {{dropdown}} answers, there are {len(folded)}"

    def citations(self) -> Iterator[str]:
        keys = [
            key.strip()
            for match in ROLE.finditer(self.everything)
            if match["name"].split(":")[0] == "cite"
            for key in match["text"].split(",")
        ]
        if not keys:
            yield "nothing is cited"
        for key in keys:
            if key not in self.works:
                yield f"references.bib has no entry {key!r}"

    def where_this_leads(self) -> Iterator[str]:
        section = self.section("Where this leads")
        if section is None:
            yield "the section '## Where this leads' is missing"
        elif not any(re.search(r"\{(?:cite|doc|ref)|\]\(", block.text) for block in walk(section)):
            yield "'Where this leads' names no source and no page"

    def one_title(self) -> Iterator[str]:
        count = sum(block.kind == "heading" and block.name == "#" for block in self.blocks)
        if count != 1:
            yield f"a page has one title, this one has {count}"
