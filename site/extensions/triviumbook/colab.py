"""A chapter as a notebook that reads well without Sphinx: in Colab, Jupyter or on GitHub.

The .md is the only source. Everything MyST adds to Markdown is rewritten in plain Markdown, the
values that the prose quotes are taken from the book's own run, and whatever has no form in a
notebook is an error that names page and line, never silence.

    python -m triviumbook.colab chapters/code/cnn.md --values cnn.glue.json > cnn.ipynb
"""

import argparse
import html
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import pybtex.plugin
import yaml
from myst_nb.core.read import read_myst_markdown_notebook
from myst_nb.core.variables import format_plain_text
from pybtex.database import BibliographyData, parse_file

from triviumbook.citations import BibliographyStyle, authors
from triviumbook.repository import book_url, file_url

ADMONITIONS = {
    "attention", "caution", "danger", "error", "hint", "important", "note", "seealso", "tip",
    "warning",
}  # fmt: skip
FAMILIES = {"convolution", "recurrence", "attention"}
HIDING_TAGS = {"hide-input", "remove-input", "hide-cell", "remove-cell"}
OTHER_TAGS = {"hide-output", "remove-output", "scroll-output", "remove-stdout", "remove-stderr"}

FENCE = re.compile(r"^(?P<indent>[ >]*)(?P<fence>`{3,}(?=[^`]*$)|~{3,}|:{3,})(?P<info>.*)$")
DIRECTIVE = re.compile(r"^\{(?P<name>[^}\s]+)\}\s*(?P<argument>.*)$")
TARGET = re.compile(r"^\((?P<label>[^)\s]+)\)=\s*$")
HEADING = re.compile(r"^(?P<level>#{1,6})\s+(?P<text>.*?)\s*#*$")
ROLE = re.compile(r"\{(?P<name>[a-zA-Z][\w:+-]*)\}(?P<tick>`+)(?P<text>.+?)(?P=tick)", re.DOTALL)
INLINE_MATH = re.compile(r"(?<![\\$])\$(?!\s)(?:\\.|[^$\\])+?(?<!\s)\$(?![\d$])", re.DOTALL)
CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<target>[^)\s]+)\)")
SPAN = re.compile(r"\[(?P<text>[^\]]+)\]\{[.#][^}]*\}")
TITLED = re.compile(r"^(?P<title>.*?)\s*<(?P<target>[^<>]+)>$", re.DOTALL)


class NotebookError(ValueError):
    """Something in a chapter has no form in a notebook."""


# ---------------------------------------------------------------- reading a page into blocks


@dataclass
class Block:
    """One block of Markdown: kind is text, code, math, target, heading or directive."""

    kind: str
    text: str = ""
    name: str = ""
    argument: str = ""
    options: dict[str, str] = field(default_factory=dict)
    children: list["Block"] = field(default_factory=list)
    indent: str = ""


# Directives whose content is not Markdown.
VERBATIM = {
    "bibliography", "code", "code-block", "contents", "glue", "image", "list-table", "math",
    "raw", "sourcecode", "tableofcontents", "toctree",
}  # fmt: skip


def _options(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options at the head of a directive's content, and the rest."""
    options: dict[str, str] = {}
    if lines and lines[0].strip() == "---":
        end = next((i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
        if end is not None:
            given = yaml.safe_load("\n".join(lines[1:end])) or {}
            return {str(k): "" if v is None else str(v) for k, v in given.items()}, lines[end + 1 :]
    while lines and (match := re.match(r"^\s*:([\w-]+):\s*(.*)$", lines[0])):
        options[match.group(1)] = match.group(2).strip()
        lines = lines[1:]
    if lines and options and not lines[0].strip():
        lines = lines[1:]
    return options, lines


def parse(text: str) -> list[Block]:
    """Cut MyST Markdown into blocks; directives are parsed to any depth."""
    lines = text.split("\n")
    blocks: list[Block] = []
    plain: list[str] = []

    def flush() -> None:
        if any(line.strip() for line in plain):
            blocks.append(Block("text", "\n".join(plain).strip("\n")))
        plain.clear()

    i = 0
    while i < len(lines):
        line = lines[i]
        if match := FENCE.match(line):
            fence, indent = match["fence"], match["indent"]
            closing = re.compile(rf"^[ >]*{re.escape(fence[0])}{{{len(fence)},}}\s*$")
            end = next((j for j in range(i + 1, len(lines)) if closing.match(lines[j])), None)
            if end is None:
                raise NotebookError(f"a fence is never closed: {line.strip()!r}")
            inner = [each.removeprefix(indent) for each in lines[i + 1 : end]]
            directive = DIRECTIVE.match(match["info"].strip())
            flush()
            if directive:
                options, content = _options(inner)
                name = directive["name"]
                block = Block(
                    "directive", "\n".join(content), name, directive["argument"].strip(), options,
                    [] if name in VERBATIM else parse("\n".join(content)), indent,
                )  # fmt: skip
            elif fence[0] == ":":
                raise NotebookError(f"a colon fence without a directive: {line.strip()!r}")
            else:
                block = Block("code", "\n".join(inner), match["info"].strip(), indent=indent)
            blocks.append(block)
            i = end + 1
        elif line.strip().startswith("$$"):
            j, rest = i, line.strip()[2:]
            body = rest
            while "$$" not in rest:
                j += 1
                if j == len(lines):
                    raise NotebookError(f"a formula is never closed: {line.strip()!r}")
                rest = lines[j].strip()
                body += "\n" + rest
            body, tail = body.split("$$", 1)
            label = re.fullmatch(r"\s*\(([^)\s]+)\)\s*", tail)
            if tail.strip() and not label:
                plain.append(line)
                plain.extend(lines[i + 1 : j + 1])
            else:
                flush()
                indent = line[: len(line) - len(line.lstrip())]
                name = label.group(1) if label else ""
                blocks.append(Block("math", body.strip(), name, indent=indent))
            i = j + 1
        elif match := re.match(r"^\\begin\{([a-z]+\*?)\}", line):
            end = next(
                (j for j in range(i, len(lines)) if rf"\end{{{match[1]}}}" in lines[j]), None
            )
            if end is None:
                raise NotebookError(f"{match[0]} is never closed")
            flush()
            blocks.append(Block("math", "\n".join(lines[i : end + 1])))
            i = end + 1
        elif match := TARGET.match(line):
            flush()
            blocks.append(Block("target", name=match["label"]))
            i += 1
        elif match := HEADING.match(line):
            flush()
            blocks.append(Block("heading", match["text"], match["level"]))
            i += 1
        elif line.startswith("%"):
            i += 1
        else:
            plain.append(line)
            i += 1
    flush()
    return blocks


def walk(blocks: list[Block]) -> Iterator[Block]:
    """The blocks and everything inside them, in reading order."""
    for block in blocks:
        yield block
        yield from walk(block.children)


# ---------------------------------------------------------------- what a page can be asked for


@dataclass
class Label:
    """What a label points at."""

    page: str
    kind: str  # section, figure, table, equation, exercise, solution
    text: str  # the section's title, or the number


def slug(title: str) -> str:
    """The anchor that MyST gives a heading."""
    text = re.sub(r"[`*_]", "", title).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@dataclass
class Page:
    """One source file: its cells, parsed, and what can be referred to."""

    root: Path
    name: str
    number: str = ""
    text: str | None = None

    @cached_property
    def notebook(self) -> nbformat.NotebookNode:
        text = self.text
        if text is None:
            text = (self.root / f"{self.name}.md").read_text(encoding="utf-8")
        if not text.startswith("---"):
            text = f"---\nfile_format: mystnb\n---\n\n{text}"
        return read_myst_markdown_notebook(text)

    @cached_property
    def cells(self) -> list[tuple[Any, list[Block]]]:
        return [
            (cell, parse(cell.source) if cell.cell_type == "markdown" else [])
            for cell in self.notebook.cells
        ]

    @property
    def has_code(self) -> bool:
        return any(cell.cell_type == "code" for cell in self.notebook.cells)

    @property
    def has_notebook(self) -> bool:
        """Whether it runs outside a clone of the book; `colab: false` in its header denies that."""
        return self.has_code and self.notebook.metadata.get("colab", True)

    @cached_property
    def title(self) -> str:
        for _, blocks in self.cells:
            for block in walk(blocks):
                if block.kind == "heading":
                    return block.text
        return self.name

    @cached_property
    def labels(self) -> dict[str, Label]:
        """Labels of the page, numbered as Sphinx numbers them."""
        found: dict[str, Label] = {}
        counts: dict[str, int] = {}

        def number(kind: str) -> str:
            counts[kind] = counts.get(kind, 0) + 1
            return f"{self.number}.{counts[kind]}" if self.number else str(counts[kind])

        def note(label: str, kind: str, text: str) -> None:
            if label:
                found[label.lower()] = Label(self.name, kind, text)

        waiting: list[str] = []
        for cell, blocks in self.cells:
            figure = cell.metadata.get("mystnb", {}).get("figure")
            if figure and figure.get("caption"):
                note(str(figure.get("name", "")), "figure", number("figure"))
            for block in walk(blocks):
                label = block.options.get("label", "") or block.options.get("name", "")
                if block.kind == "target":
                    waiting.append(block.name)
                    continue
                if block.kind == "heading":
                    for name in [*waiting, slug(block.text)]:
                        note(name, "section", block.text)
                elif block.kind == "math" and block.name:
                    note(block.name, "equation", number("equation"))
                elif block.kind == "directive":
                    if block.name == "math" and label:
                        note(label, "equation", number("equation"))
                    elif block.name in ("figure", "glue:figure"):
                        note(label, "figure", number("figure"))
                    elif block.name in ("table", "list-table") and block.argument:
                        note(label, "table", number("table"))
                    elif block.name in ("exercise", "exercise-start"):
                        numbered = "nonumber" not in block.options
                        note(label, "exercise", number("exercise") if numbered else "")
                    elif block.name in ("solution", "solution-start"):
                        note(label, "solution", block.argument)
                waiting = []
        return found


class Book:
    """The pages that the table of contents lists, and the works they cite."""

    def __init__(self, root: Path, extra: dict[str, str] | None = None) -> None:
        self.root = root
        self.pages: dict[str, Page] = {}
        texts = extra or {}
        for name, number in self._entries():
            self.pages[name] = Page(root, name, number, texts.get(name))
        for name, text in texts.items():
            self.pages.setdefault(name, Page(root, name, "", text))

    def _entries(self) -> Iterator[tuple[str, str]]:
        toc = yaml.safe_load((self.root / "_toc.yml").read_text(encoding="utf-8"))
        yield toc["root"].removesuffix(".md"), ""
        count = 0
        for part in toc.get("parts", [toc]):
            for chapter in part.get("chapters", []):
                numbered = bool(part.get("numbered"))
                count += numbered
                yield chapter["file"].removesuffix(".md"), str(count) if numbered else ""

    @cached_property
    def labels(self) -> dict[str, Label]:
        found: dict[str, Label] = {}
        for page in self.pages.values():
            found |= {key: label for key, label in page.labels.items() if key not in found}
        return found

    @cached_property
    def works(self) -> BibliographyData:
        return parse_file(str(self.root / "references.bib"), bib_format="bibtex")

    def listed(self, keys: list[str]) -> list[str]:
        """The works as the bibliography lists them, in Markdown."""
        style = BibliographyStyle()
        entries = style.format_entries([self.works.entries[key] for key in dict.fromkeys(keys)])
        # Pybtex's own Markdown escapes every full stop; the text form with links is what is read.
        backend = pybtex.plugin.find_plugin("pybtex.backends", "markdown")()
        texts = [re.sub(r"\\([.\-()!#+_])", r"\1", each.text.render(backend)) for each in entries]
        return [" ".join(text.split()) for text in texts]


# ---------------------------------------------------------------- writing Markdown


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def _summary(text: str) -> str:
    """Inline Markdown as HTML: what stands inside <summary> is not read as Markdown."""
    text = html.escape(text, quote=False)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)
    return re.sub(r"\*([^*]+)\*", r"<i>\1</i>", text)


def _folded(summary: str, body: str) -> str:
    return f"<details>\n<summary>{_summary(summary)}</summary>\n\n{body}\n\n</details>"


class Writer:
    """Turns the blocks of one page into plain Markdown."""

    def __init__(
        self, book: Book, page: Page, repository: str | None, revision: str | None,
        values: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.book = book
        self.page = page
        self.repository = repository
        self.revision = revision
        self.values = values
        self.cited: list[str] = []
        self.solving: str | None = None  # the exercise whose gated solution is open
        self.kept: list[str] = []

    # -- references

    def address(self, page: str, anchor: str = "") -> str | None:
        """Where the rendered page is published, if anywhere is known."""
        if not self.repository:
            return None
        return f"{book_url(self.repository)}{page}.html" + (f"#{anchor}" if anchor else "")

    def linked(self, text: str, page: str, anchor: str = "") -> str:
        if page == self.page.name:
            return f"[{text}](#{anchor})" if anchor else text
        address = self.address(page, anchor)
        return f"[{text}]({address})" if address else f"*{text}*"

    def find(self, label: str) -> Label:
        key = label.strip().lower()
        found = self.page.labels.get(key) or self.book.labels.get(key)
        if found is None:
            raise NotebookError(f"no page has the label {label!r}")
        return found

    def refer(self, label: str, text: str = "") -> str:
        """A reference by the kind of what it points at."""
        found = self.find(label)
        kind = {"figure": "Figure", "table": "Table", "exercise": "Exercise"}.get(found.kind)
        if found.kind == "equation":
            shown = text or f"({found.text})"
        elif kind:
            shown = text or f"{kind} {found.text}".strip()
        elif found.kind == "solution":
            exercise = self.find(found.text)
            shown = text or f"Solution to Exercise {exercise.text}".strip()
        else:
            return self.linked(text or self.inline(found.text), found.page, label.strip())
        if found.page == self.page.name:
            return shown
        prefix = "equation-" if found.kind == "equation" else ""
        return self.linked(shown, found.page, prefix + label.strip())

    def document(self, target: str) -> str:
        """The page that a path, relative to this page or to the root, names."""
        base = self.page.root if target.startswith("/") else (
            self.page.root / self.page.name
        ).parent  # fmt: skip
        path = (base / target.lstrip("/").removesuffix(".md")).resolve()
        try:
            name = path.relative_to(self.page.root.resolve()).as_posix()
        except ValueError:
            name = ""
        if name not in self.book.pages:
            raise NotebookError(f"{target!r} is not a page of the book")
        return name

    def cite(self, style: str, keys: str) -> str:
        parts = []
        for part in keys.split(","):
            key = part.strip()
            if key not in self.book.works.entries:
                raise NotebookError(f"references.bib has no entry {key!r}")
            entry = self.book.works.entries[key]
            self.cited.append(key)
            who, year = authors(entry), entry.fields.get("year", "n.d.")
            parts.append(f"{who} ({year})" if style == "text" else f"{who}, {year}")
        if style == "text":
            return ", ".join(parts)
        return f"({'; '.join(parts)})"

    def value(self, text: str) -> str:
        """A value of the book's run, formatted as the prose asks."""
        name, _, form = text.rpartition(":") if ":" in text else (text, "", "s")
        if "::" in text and (name.endswith(":") or not name):
            name, form = text, "s"
        if name not in self.values:
            raise NotebookError(f"the run recorded no value {name!r}")
        return format_plain_text(self.values[name], form or "s")

    # -- inline

    def keep(self, text: str) -> str:
        """Put a finished piece aside, so that no later rule reads it again."""
        self.kept.append(text)
        return f"\x00{len(self.kept) - 1}\x00"

    def restore(self, text: str) -> str:
        while "\x00" in text:
            text = re.sub(r"\x00(\d+)\x00", lambda match: self.kept[int(match[1])], text)
        return text

    def inline(self, text: str) -> str:
        """Markdown text with roles, labels and attributes turned into plain Markdown."""
        text = ROLE.sub(lambda match: self.keep(self.role(match["name"], match["text"])), text)
        text = CODE_SPAN.sub(lambda match: self.keep(match[0]), text)
        text = INLINE_MATH.sub(lambda match: self.keep(match[0]), text)
        text = re.sub(r"^\[\^([^\]]+)\]:\s*", r"<sup>\1</sup> ", text, flags=re.MULTILINE)
        text = re.sub(r"\[\^([^\]]+)\]", r"<sup>\1</sup>", text)
        text = SPAN.sub(lambda match: match["text"], text)
        text = IMAGE.sub(lambda match: self.keep(self.image(match["target"], match["alt"])), text)
        text = LINK.sub(self.link, text)
        text = re.sub(r"<(?:project:)?#([\w-]+)>", lambda match: self.refer(match[1]), text)
        # Attributes that follow a link, an image or code, whose text is put aside by now.
        text = re.sub(r"(?<=[)\x00])\{[.#][^}]*\}", "", text)
        return self.restore(text)

    def role(self, name: str, text: str) -> str:
        titled = TITLED.match(text)
        title, target = (titled["title"], titled["target"]) if titled else ("", text)
        if name in ("glue:text", "glue"):
            return self.value(text)
        if name in ("eq", "math:numref"):
            return self.refer(text)
        if name == "numref":
            found = self.find(target)
            if "%s" in title or "{number}" in title:
                title = title.replace("%s", found.text).replace("{number}", found.text)
            return self.refer(target, title)
        if name == "ref":
            return self.refer(target, title)
        if name == "doc":
            page = self.document(target)
            return self.linked(title or self.inline(self.book.pages[page].title), page)
        if name in ("cite:t", "cite:ts", "cite:ct"):
            return self.cite("text", text)
        if name in ("cite", "cite:p", "cite:ps", "cite:cp"):
            return self.cite("parenthetical", text)
        if name == "math":
            return f"${text}$"
        if name in ("code", "file", "samp", "command", "program"):
            return f"`{text}`"
        if name == "kbd":
            return f"<kbd>{text}</kbd>"
        if name in ("sub", "sup"):
            return f"<{name}>{text}</{name}>"
        if name == "abbr":
            return re.sub(r"\s*\(.*\)$", "", text)
        if name == "term":
            return f"*{title or text}*"
        if name in ("menuselection", "guilabel"):
            return f"**{text}**"
        if name == "dfn" or name in FAMILIES:
            return f"**{text}**"
        if name == "cited":
            return text
        raise NotebookError(f"the role {{{name}}} has no form in a notebook")

    def link(self, match: re.Match[str]) -> str:
        text, target = self.restore(match["text"]), match["target"]
        if re.match(r"^(https?:|mailto:)", target):
            return match[0]
        if target.startswith("#"):
            return self.refer(target[1:], text)
        path, _, anchor = target.partition("#")
        if path.endswith(".md"):
            page = self.document(path)
            return self.linked(text or self.inline(self.book.pages[page].title), page, anchor)
        where = self.file(path)
        return f"[{text}]({where})" if where else text

    def file(self, path: str) -> str | None:
        """Where a file of the repository can be seen."""
        base = self.page.root if path.startswith("/") else (
            self.page.root / self.page.name
        ).parent  # fmt: skip
        found = (base / path.lstrip("/")).resolve()
        if not found.is_file():
            raise NotebookError(f"no file {path!r}")
        if not (self.repository and self.revision):
            return None
        name = found.relative_to(self.page.root.resolve()).as_posix()
        return file_url(self.repository, self.revision, name)

    def image(self, target: str, alt: str) -> str:
        if re.match(r"^https?:", target):
            return f"![{alt}]({target})"
        where = self.file(target)
        return f"![{alt}]({where}?raw=true)" if where else f"*{alt}*"

    # -- blocks

    def write(self, blocks: list[Block]) -> str:
        """Blocks as Markdown, separated by blank lines."""
        parts = []
        for block in blocks:
            text = self.block(block)
            if text.strip():
                parts.append("\n".join(f"{block.indent}{line}".rstrip() if block.indent else line
                                       for line in text.split("\n")))  # fmt: skip
        return "\n\n".join(parts)

    def block(self, block: Block) -> str:
        if block.kind == "text":
            return self.inline(block.text)
        if block.kind == "heading":
            return f"{block.name} {self.inline(block.text)}"
        if block.kind == "code":
            return f"```{block.name}\n{block.text}\n```"
        if block.kind == "math":
            return self.formula(block.text, block.name)
        if block.kind == "target":
            return f'<a name="{html.escape(block.name)}"></a>'
        return self.directive(block)

    def formula(self, body: str, label: str) -> str:
        if body.startswith("\\begin{align") and not label:
            return body
        if label:
            number = self.find(label).text
            body = f"{body.rstrip()} \\tag{{{number}}}"
            return f'<a name="{html.escape(label)}"></a>\n\n$$\n{body}\n$$'
        return f"$$\n{body}\n$$"

    def directive(self, block: Block) -> str:
        name, argument, options = block.name, self.inline(block.argument), block.options
        classes = options.get("class", "").split()
        if name in ADMONITIONS or name == "admonition":
            titles = {"seealso": "See also"}
            title = argument if name == "admonition" else titles.get(name, name.capitalize())
            body = self.write(block.children)
            if name != "admonition" and argument:
                body = f"{argument}\n\n{body}".strip()
            if "dropdown" in classes:
                return _folded(title, body)
            return _quoted(f"**{title}**\n\n{body}")
        if name == "dropdown":
            return _folded(argument, self.write(block.children))
        if name in ("margin", "sidebar", "topic", "aside"):
            body = self.write(block.children)
            return _quoted(f"**{argument}**\n\n{body}" if argument else body)
        if name in ("epigraph", "pull-quote", "highlights"):
            return _quoted(self.write(block.children))
        if name in ("exercise", "exercise-start"):
            return self.exercise(block, argument)
        if name == "solution":
            return _folded(self.solution_title(block.argument), self.write(block.children))
        if name == "solution-start":
            self.solving = block.argument
            return ""
        if name in ("exercise-end", "solution-end"):
            self.solving = None if name == "solution-end" else self.solving
            return ""
        if name == "math":
            return self.formula(block.text.strip(), options.get("label", ""))
        if name in ("code-block", "code", "sourcecode"):
            caption = f"*{self.inline(options['caption'])}*\n\n" if "caption" in options else ""
            return f"{caption}```{block.argument}\n{block.text}\n```"
        if name == "image":
            return self.image(block.argument, options.get("alt", ""))
        if name in ("figure", "glue:figure"):
            return self.figure(block)
        if name in ("table", "list-table"):
            return self.table(block, argument)
        if name in ("container", "div", "grid", "tab-set", "rst-class"):
            return self.write(block.children)
        if name in ("tab-item", "grid-item-card", "card", "grid-item"):
            body = self.write(block.children)
            return f"**{argument}**\n\n{body}" if argument else body
        if name == "rubric":
            return f"**{argument}**"
        if name == "raw" and block.argument == "html":
            return re.sub(r"<script.*?</script>", "", block.text, flags=re.DOTALL)
        if name in ("toctree", "tableofcontents", "contents", "bibliography"):
            # Colab lists the headings itself; the works that were cited stand at the end.
            return ""
        raise NotebookError(f"the directive {{{name}}} has no form in a notebook")

    def exercise(self, block: Block, title: str) -> str:
        label = block.options.get("label", "")
        number = self.find(label).text if label else ""
        head = f"**Exercise {number}**" if number else "**Exercise**"
        head += f" ({title})" if title else ""
        anchor = f'<a name="{html.escape(label)}"></a>\n\n' if label else ""
        return anchor + _quoted(f"{head}\n\n{self.write(block.children)}".rstrip())

    def solution_title(self, label: str) -> str:
        found = self.find(label)
        return f"Solution to Exercise {found.text}".strip()

    def figure(self, block: Block) -> str:
        label = block.options.get("name", "")
        number = f"**Figure {self.find(label).text}.** " if label else ""
        caption = number + self.write(block.children)
        if block.name == "glue:figure":
            return caption
        image = self.image(block.argument, block.options.get("alt", ""))
        return f"{image}\n\n{caption}".strip()

    def table(self, block: Block, caption: str) -> str:
        label = block.options.get("name", "")
        number = f"**Table {self.find(label).text}.** " if label and caption else ""
        head = f"{number}{caption}\n\n" if caption else ""
        if block.name == "table":
            return head + self.write(block.children)
        rows: list[list[str]] = []
        for line in block.text.split("\n"):
            if match := re.match(r"^\*\s+-\s?(.*)$", line):
                rows.append([match[1]])
            elif match := re.match(r"^\s+-\s?(.*)$", line):
                rows[-1].append(match[1])
            elif line.strip():
                rows[-1][-1] += " " + line.strip()
        cells = [[self.inline(cell).replace("|", "\\|") for cell in row] for row in rows]
        if not int(block.options.get("header-rows", "0") or 0):
            cells.insert(0, [""] * len(cells[0]))
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        lines.insert(1, "|" + " --- |" * len(cells[0]))
        return head + "\n".join(lines)


# ---------------------------------------------------------------- the notebook


INSTALL = """\
# @title Install the package of the book, unless it is here already
# Trivium is the small package that this chapter shares with the rest of the book.
import importlib.util

if importlib.util.find_spec("trivium") is None:
    %pip install -q "trivium{extras} @ git+https://github.com/{repository}@{revision}"
"""

REFUSE = """\
# @title Find the package of the book
# Trivium is the small package that this chapter shares with the rest of the book.
import importlib.util

if importlib.util.find_spec("trivium") is None:
    raise ImportError(
        "trivium is not installed, and this notebook was written by a copy of the book "
        "that has no public repository: run `pip install .` in a clone of the book."
    )
"""


def _code_cell(cell: Any, solving: str | None, title: str) -> tuple[str, dict[str, Any]]:
    """Source and metadata of a code cell; what the page hides or folds, Colab folds."""
    tags = set(cell.metadata.get("tags", []))
    if unknown := tags - HIDING_TAGS - OTHER_TAGS:
        hint = ": catch the exception, so that the notebook runs to its end" if (
            "raises-exception" in unknown
        ) else ""  # fmt: skip
        raise NotebookError(f"cell tags {sorted(unknown)} have no form in a notebook{hint}")
    source, metadata = cell.source, {}
    if tags & HIDING_TAGS or solving:
        metadata = {"cellView": "form", "jupyter": {"source_hidden": True}}
    if solving and not source.lstrip().startswith("%%"):
        source = f"# @title {title}\n{source}"
    return source, metadata


def _leftovers(markdown: str) -> None:
    """Refuse MyST that slipped through."""
    text = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    text = re.sub(r"(`+).+?\1", lambda match: "" if match.start() == 0 or
                  text[match.start() - 1] != "}" else match[0], text, flags=re.DOTALL)  # fmt: skip
    for pattern in (r"\{[a-zA-Z][\w:+-]*\}`", r"^\s*:::", r"^\([^)\s]+\)=\s*$"):
        if match := re.search(pattern, text, flags=re.MULTILINE):
            raise NotebookError(f"left as it was: {text[match.start() :][:60]!r}")


def convert(
    path: Path,
    repository: str | None,
    revision: str | None,
    values: Mapping[str, str],
    *,
    root: Path | None = None,
    text: str | None = None,
) -> nbformat.NotebookNode:
    """The notebook of the chapter at `path`.

    Args:
        path: the .md file.
        repository: "owner/name" on GitHub, or None where there is none.
        revision: the commit that the first cell installs, or None.
        values: what the run recorded: name -> its text/plain form, as in `.glue.json`.
        root: the folder of `_toc.yml`; the nearest one above `path` unless given.
        text: the chapter's text, if it is not what `path` holds.

    Returns:
        A notebook without outputs, of format 4.5.

    Raises:
        ValueError: where the chapter uses something that has no form in a notebook, quotes a
            value that the run did not record, or refers to something that does not exist.
    """
    path = path.resolve()
    if root is None:
        root = next((each for each in path.parents if (each / "_toc.yml").is_file()), None)
        if root is None:
            raise ValueError(f"path: no _toc.yml above {path.name}")
    root = root.resolve()
    name = path.relative_to(root).with_suffix("").as_posix()
    given = {name: text if text is not None else path.read_text(encoding="utf-8")}
    book = Book(root, given)
    page = book.pages[name]
    writer = Writer(book, page, repository, revision, values)
    try:
        return _notebook(page, writer)
    except (NotebookError, KeyError) as error:
        raise NotebookError(f"{name}.md: {error}") from error


def _notebook(page: Page, writer: Writer) -> nbformat.NotebookNode:
    if writer.repository and writer.revision:
        extras = page.notebook.metadata.get("extras", [])
        first = INSTALL.format(
            extras=f"[{','.join(extras)}]" if extras else "",
            repository=writer.repository,
            revision=writer.revision,
        )
    else:
        first = REFUSE
    cells = [nbformat.v4.new_code_cell(first.rstrip(), metadata={"cellView": "form"})]
    for index, (cell, blocks) in enumerate(page.cells):
        try:
            if cell.cell_type == "code":
                title = writer.solution_title(writer.solving) if writer.solving else ""
                source, metadata = _code_cell(cell, writer.solving, title)
                cells.append(nbformat.v4.new_code_cell(source, metadata=metadata))
                figure = cell.metadata.get("mystnb", {}).get("figure", {})
                if figure.get("caption"):
                    number = ""
                    if figure.get("name"):
                        number = f"**Figure {writer.find(str(figure['name'])).text}.** "
                    caption = number + writer.inline(" ".join(str(figure["caption"]).split()))
                    cells.append(nbformat.v4.new_markdown_cell(caption))
            elif cell.cell_type == "markdown":
                cells += [nbformat.v4.new_markdown_cell(each) for each in _prose(writer, blocks)]
        except NotebookError as error:
            begin = cell.source.strip().split("\n")[0][:60]
            raise NotebookError(f"cell {index + 1} ({begin!r}): {error}") from error
    if writer.cited:
        listed = "\n".join(f"- {each}" for each in writer.book.listed(writer.cited))
        cells.append(nbformat.v4.new_markdown_cell(f"## Sources\n\n{listed}"))
    for index, cell in enumerate(cells):
        cell.id = f"cell-{index:03d}"
        if cell.cell_type == "markdown":
            _leftovers(cell.source)
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "colab": {"provenance": [], "toc_visible": True},
    }
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    notebook.nbformat_minor = 5
    nbformat.validate(notebook)
    return notebook


def _prose(writer: Writer, blocks: list[Block]) -> Iterator[str]:
    """The Markdown cells of one cell's blocks; prose inside a gated solution is folded."""
    pieces: list[tuple[str | None, list[str]]] = []
    for block in blocks:
        before = writer.solving
        text = writer.write([block])
        state = before if before == writer.solving else None
        if text.strip():
            if not pieces or pieces[-1][0] != state:
                pieces.append((state, []))
            pieces[-1][1].append(text)
    for state, texts in pieces:
        body = "\n\n".join(texts)
        yield _folded(writer.solution_title(state), body) if state else body


def main() -> None:
    """Convert one chapter from the command line."""
    parser = argparse.ArgumentParser(description="Write a chapter as a notebook.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--repository")
    parser.add_argument("--revision")
    parser.add_argument("--values", type=Path, help="the .glue.json that the book's run wrote")
    options = parser.parse_args()
    values = recorded(options.values) if options.values else {}
    notebook = convert(options.path, options.repository, options.revision, values)
    sys.stdout.write(nbformat.writes(notebook) + "\n")


def recorded(path: Path) -> dict[str, str]:
    """The values in a `.glue.json` that the book's run wrote: name -> text/plain."""
    if not path.is_file():
        return {}
    glued = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: each["data"]["text/plain"]
        for name, each in glued.items()
        if "text/plain" in each["data"]
    }


if __name__ == "__main__":
    main()
