"""The book's own extensions: the cache's fingerprint, the repository, the record, the pages."""

import importlib.metadata
import os
import struct
import subprocess
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup
from checkout import ROOT
from docutils import nodes
from triviumbook import cache, notebooks, offline, pages, record
from triviumbook.repository import (
    book_url,
    colab_url,
    file_url,
    modified,
    repository,
    revision,
)


@pytest.fixture
def tree(tmp_path):
    """A small checkout."""
    for name, content in {
        "src/trivium/a.py": "a = 1",
        "data/set.bin": "bytes",
        "recipes/a/record.json": "{}",
        "requirements.lock": "jax==1",
        "chapters/page.md": "prose",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["src/trivium/a.py", "data/set.bin", "recipes/a/record.json", "requirements.lock"]
)
def test_a_change_of_code_data_or_lock_executes_again(tree, name):
    before = cache.fingerprint(tree)
    (tree / name).write_text("something else")
    assert cache.fingerprint(tree) != before


@pytest.mark.parametrize("name", ["src/trivium/new.py", "data/new/set.bin"])
def test_a_new_file_executes_again(tree, name):
    before = cache.fingerprint(tree)
    (tree / name).parent.mkdir(exist_ok=True)
    (tree / name).write_text("")
    assert cache.fingerprint(tree) != before


@pytest.mark.parametrize(
    "name",
    ["chapters/page.md", "src/trivium/__pycache__/a.pyc", "README.md", "src/.swp", "recipes/a.py"],
)
def test_prose_and_byproducts_do_not_execute_again(tree, name):
    before = cache.fingerprint(tree)
    (tree / name).parent.mkdir(exist_ok=True)
    (tree / name).write_text("something else")
    assert cache.fingerprint(tree) == before


def test_other_packages_execute_again(tree, monkeypatch):
    before = cache.fingerprint(tree)
    installed = [SimpleNamespace(name="jax", version="99")]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: installed)
    assert cache.fingerprint(tree) != before


def test_old_caches_are_pruned(tmp_path):
    for age, name in enumerate(["current", "new", "newer", "old", "older"]):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    cache.prune(tmp_path, "older")
    left = {each.name for each in tmp_path.iterdir()}
    assert left == {"older", "current", "new"}


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """An empty repository with one commit, and a function that runs git in it."""
    monkeypatch.delenv("REPOSITORY", raising=False)

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "-m", "one")
    return tmp_path, git


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://github.com/owner/name", "owner/name"),
        ("https://github.com/owner/name.git", "owner/name"),
        ("https://token@github.com/owner/na.me.git", "owner/na.me"),
        ("git@github.com:owner/name.git", "owner/name"),
        ("ssh://git@github.com/owner/name.git", "owner/name"),
        ("https://example.org/owner/name.git", None),
        ("https://github.com.example.org/owner/name", None),
        ("/srv/git/name.git", None),
    ],
)
def test_the_origin_names_the_repository(clone, origin, expected):
    root, git = clone
    git("remote", "add", "origin", origin)
    assert repository(root) == expected


def test_no_origin_is_no_repository(clone):
    assert repository(clone[0]) is None


def test_the_variable_comes_before_the_origin(clone, monkeypatch):
    root, git = clone
    git("remote", "add", "origin", "https://github.com/owner/name")
    monkeypatch.setenv("REPOSITORY", "other/fork")
    assert repository(root) == "other/fork"


@pytest.mark.parametrize("wrong", ["name", "https://github.com/owner/name", "a/b/c", "a/"])
def test_a_variable_that_is_no_repository_is_refused(monkeypatch, wrong):
    monkeypatch.setenv("REPOSITORY", wrong)
    with pytest.raises(ValueError, match="REPOSITORY"):
        repository(ROOT)


def test_commit_and_changes(clone):
    root, git = clone
    assert revision(root) == git("rev-parse", "HEAD")
    assert not modified(root)
    (root / "untracked").write_text("")
    assert not modified(root)
    (root / "file").write_text("two")
    assert modified(root)


def test_outside_of_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert revision(tmp_path) is None
    assert not modified(tmp_path)


def test_addresses():
    assert book_url("Owner/name") == "https://owner.github.io/name/"
    assert book_url("owner/owner.github.io") == "https://owner.github.io/"
    assert file_url("owner/name", "abc", "a.md") == "https://github.com/owner/name/blob/abc/a.md"
    assert colab_url("owner/name", "chapters/code/cnn") == (
        "https://colab.research.google.com/github/owner/name/blob/notebooks/chapters/code/cnn.ipynb"
    )


@pytest.mark.parametrize("named", ["owner/name", ""])
def test_a_button_leads_to_colab_where_there_is_a_repository(clone, monkeypatch, named):
    monkeypatch.setenv("REPOSITORY", named)
    context = {"header_buttons": [], "ipynb_source": "chapters/code/cnn.ipynb"}
    app = SimpleNamespace(srcdir=clone[0])
    notebooks._launch(app, "chapters/code/cnn", "page.html", context, None)
    urls = [button["url"] for button in context["header_buttons"]]
    assert urls == ([colab_url(named, "chapters/code/cnn")] if named else [])


def test_a_page_without_code_has_no_button(clone, monkeypatch):
    monkeypatch.setenv("REPOSITORY", "owner/name")
    context = {"header_buttons": []}
    notebooks._launch(SimpleNamespace(srcdir=clone[0]), "page", "page.html", context, None)
    assert context["header_buttons"] == []


def test_a_widget_loads_its_module_and_nothing_else(tmp_path, caplog):
    (tmp_path / "site/widgets").mkdir(parents=True)
    (tmp_path / "site/widgets/trivium-cnn.js").write_text("")
    scripts, styles = [], []
    app = SimpleNamespace(
        srcdir=tmp_path,
        add_js_file=lambda name, **options: scripts.append((name, options)),
        add_css_file=styles.append,
    )
    body = '<trivium-cnn></trivium-cnn> <trivium-cnn class="a"> &lt;trivium-lstm&gt;'
    offline._load_widgets(app, "page", "page.html", {"body": body}, None)
    assert scripts == [("../widgets/trivium-cnn.js", {"type": "module"})]
    assert styles == ["../widgets/widgets.css", "../widgets/trivium-cnn.css"]


@pytest.fixture
def described():
    """A function that gives the tags of a made-up page, for an address of the book."""

    def tags(address):
        app = SimpleNamespace(
            config=SimpleNamespace(html_baseurl=address),
            env=SimpleNamespace(
                titles={"page": nodes.title(text="A & B")},
                metadata={"page": {"description": "What it says."}},
            ),
        )
        context = {"pageurl": address and f"{address}page.html"}
        pages._describe(app, "page", "page.html", context, nodes.container())
        found = BeautifulSoup(context["metatags"], "html.parser").find_all("meta")
        names = [tag.get("name") or tag.get("property") for tag in found]
        assert len(set(names)) == len(names)
        return dict(zip(names, (tag["content"] for tag in found), strict=True))

    return tags


def test_a_page_with_an_address_has_a_card(described):
    tags = described("https://owner.github.io/name/")
    assert tags["og:title"] == tags["twitter:title"] == "A & B"
    assert tags["og:description"] == tags["description"] == "What it says."
    assert tags["og:image"] == "https://owner.github.io/name/_static/card.png"
    assert tags["og:url"] == "https://owner.github.io/name/page.html"
    assert tags["twitter:card"] == "summary_large_image"


def test_a_page_without_an_address_points_at_no_picture(described):
    tags = described("")
    assert tags["twitter:card"] == "summary"
    assert not {name for name in tags if name.startswith(("og:image", "og:url"))}


@pytest.mark.parametrize("address", ["https://owner.github.io/name/", ""])
def test_the_card_is_drawn_where_a_page_points_at_it(tmp_path, described, address):
    (tmp_path / "_static").mkdir()
    app = SimpleNamespace(
        outdir=tmp_path,
        builder=SimpleNamespace(format="html"),
        config=SimpleNamespace(html_baseurl=address),
    )
    pages._draw_card(app, None)
    drawn = list(tmp_path.rglob("*.png"))
    if not address:
        assert drawn == []
        return
    tags = described(address)
    assert [address + path.relative_to(tmp_path).as_posix() for path in drawn] == [tags["og:image"]]
    head = drawn[0].read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    size = struct.unpack(">II", head[16:])
    assert size == (int(tags["og:image:width"]), int(tags["og:image:height"]))


def test_the_machine_is_described():
    about = record.machine()
    assert set(about) == {"processor", "cores", "memory", "accelerator", "system"}
    assert all(about.values())
    assert int(about["cores"]) >= 1
    assert record.in_words(about).startswith(about["processor"])


def test_a_run_is_recorded_once_and_kept(tmp_path, monkeypatch):
    """A chapter that the cache answers keeps the record of the run that made it."""
    run = {"runtime": 12.5, "mtime": record.STARTED + 1, "succeeded": True}
    monkeypatch.setattr(record.NbMetadataCollector, "get_exec_data", lambda env, page: run)
    monkeypatch.setattr(record, "machine", lambda: {"processor": "first"})
    app = SimpleNamespace(
        srcdir=ROOT,
        config=SimpleNamespace(nb_execution_cache_path=str(tmp_path)),
        env=SimpleNamespace(docname="chapters/code/cnn"),
    )
    record._note(app, None)
    (noted,) = record._read(app).values()
    assert noted["machine"] == {"processor": "first"}
    assert noted["revision"] == revision(ROOT)

    monkeypatch.setattr(record, "machine", lambda: {"processor": "second"})
    record._note(app, None)
    assert list(record._read(app).values()) == [noted]

    run = {**run, "runtime": 13.5}
    record._note(app, None)
    assert len(record._read(app)) == 2

    run = {**run, "runtime": 14.5, "mtime": record.STARTED - 60}
    record._note(app, None)
    assert len(record._read(app)) == 2
