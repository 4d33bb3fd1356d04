"""Notebooks run from top to bottom where there is only what Colab has.

The first cell truly installs: git is told that the notebook's address on GitHub is this clone, and
the notebook is made from the commit that the clone's HEAD names, chapter and package alike.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from checkout import ROOT
from triviumbook.colab import ROLE, Book, convert
from triviumbook.repository import revision

HERE = "https://github.com/here/trivium"
# What a Colab machine brings, as far as the book uses it.
COLAB = (
    "jax", "flax", "optax", "matplotlib", "numpy", "scipy", "scikit-learn", "pandas", "tqdm",
    "transformers", "tokenizers", "safetensors", "keras", "ipykernel", "nbclient", "pip",
)  # fmt: skip
CHAPTERS = [
    name for name, page in Book(ROOT).pages.items() if page.has_code and "/appendix/" not in name
]
# The shortest of the article's programs stands for all on each run.
EVERY_RUN = "chapters/code/lstm"

RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=1800, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""


def at_head(path: str) -> str:
    """A file's text at the commit."""
    command = ["git", "-C", str(ROOT), "show", f"HEAD:{path}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class AnyValue(dict):
    """Values for the prose, of the kind each place asks for: only the code is tested here."""

    def __init__(self, text: str) -> None:
        for match in ROLE.finditer(text):
            if match["name"] in ("glue:text", "glue"):
                name, _, form = match["text"].partition(":")
                self[name] = "'text'" if form in ("", "s") else "1"


@pytest.fixture(scope="session")
def colab(tmp_path_factory) -> Path:
    """The Python of a new environment that holds what Colab has and nothing of ours."""
    folder = tmp_path_factory.mktemp("colab")
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed: pip install uv")
    python = folder / "bin" / "python"
    constraints = folder / "constraints.txt"
    # The lock's versions, without its hashes: transformers is not in it.
    locked = re.findall(r"^([a-z0-9._-]+==\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    constraints.write_text("\n".join(locked))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for command in (
        [uv, "venv", "--quiet", "--allow-existing", "--python", version, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(python), "-c", str(constraints), *COLAB],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    absent = subprocess.run(
        [python, "-c", "import trivium"], capture_output=True, check=False, cwd=folder
    )
    assert absent.returncode != 0
    return python


@pytest.fixture(scope="session")
def clone(tmp_path_factory) -> Path:
    """A bare clone of this repository, as GitHub would serve it."""
    folder = tmp_path_factory.mktemp("clone") / "trivium.git"
    command = ["git", "clone", "--quiet", "--bare", "--no-hardlinks", str(ROOT), str(folder)]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="session")
def downloads(tmp_path_factory) -> Path:
    """The cache of downloads as it is after the first visit: the embedded sets."""
    folder = tmp_path_factory.mktemp("downloads")
    shutil.copytree(ROOT / "data", folder, dirs_exist_ok=True)
    return folder


def run(name: str, folder: Path, colab: Path, clone: Path, downloads: Path) -> None:
    """Execute a chapter's notebook in the clean environment."""
    commit = revision(ROOT)
    text = at_head(f"{name}.md")
    notebook = convert(ROOT / f"{name}.md", "here/trivium", commit, AnyValue(text), text=text)
    assert f"git+{HERE}@{commit}" in notebook.cells[0].source
    path = folder / "notebook.ipynb"
    nbformat.write(notebook, path)
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "VIRTUAL_ENV", "KERAS_", "JAX_", "TRIVIUM_"))
    }
    environment |= {
        "PATH": f"{colab.parent}{os.pathsep}{os.environ['PATH']}",
        "TRIVIUM_DATA": str(downloads),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{clone.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": HERE,
        "JUPYTER_PATH": str(colab.parents[1] / "share" / "jupyter"),
    }
    done = subprocess.run(
        [colab, "-c", RUN, str(path)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    executed = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in executed.cells if cell.cell_type == "code"]
    assert all(counts)
    installed = subprocess.run(
        [colab, "-c", "import trivium; print(trivium.__file__)"],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert Path(installed).is_relative_to(colab.parents[1])


@pytest.fixture
def without_trivium(colab):
    """The clean environment, as it was before a notebook installed the package."""
    yield colab
    subprocess.run([colab, "-m", "pip", "uninstall", "--quiet", "--yes", "trivium"], check=True)


@pytest.mark.timeout(1800)
@pytest.mark.skipif(EVERY_RUN not in CHAPTERS, reason=f"{EVERY_RUN} is not in the contents yet")
def test_one_notebook_runs_where_there_is_only_what_colab_has(
    without_trivium, clone, downloads, tmp_path
):
    run(EVERY_RUN, tmp_path, without_trivium, clone, downloads)


@pytest.mark.weekly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [name for name in CHAPTERS if name != EVERY_RUN])
def test_every_notebook_runs_where_there_is_only_what_colab_has(
    name, without_trivium, clone, downloads, tmp_path
):
    run(name, tmp_path, without_trivium, clone, downloads)


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_cell_is_python_without_the_shell(name):
    """A notebook that shells out or reads files beside the page would not run in Colab."""
    for cell in Book(ROOT).pages[name].notebook.cells:
        if cell.cell_type == "code":
            assert not re.search(r"^\s*!", cell.source, flags=re.M)
            ast.parse(re.sub(r"^\s*%.*$", "", cell.source, flags=re.M))
