"""Imports run one way: kernels -> models -> chapters, and each part only what it needs."""

import ast
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from triviumbook.colab import Book

# What each part may import besides itself and the standard library. "trivium.x" opens one part.
# NumPy comes with JAX and is how shapes and lengths are looked at on the host.
ALLOWED = {
    "kernels": {"jax", "numpy"},
    "models": {"jax", "flax", "numpy", "trivium.kernels"},
    "data": {"numpy", "pooch", "tqdm", "PIL"},
    "train": {"jax", "flax", "optax", "orbax", "numpy", "matplotlib", "tqdm", "IPython",
              "trivium.figures", "trivium.timing"},
    "pretrained": {"jax", "flax", "numpy", "safetensors", "tokenizers", "huggingface_hub", "pooch",
                   "gguf", "jinja2", "trivium.models", "trivium.data",
                   "trivium.generate"},
    "generate": {"jax", "flax", "numpy", "trivium.models"},
    "fairness": {"numpy"},
    "figures": {"numpy", "matplotlib", "IPython"},
    "interpret": {"jax"},
    "measures": {"numpy", "pycocotools"},
    "timing": {"jax"},
}  # fmt: skip

CHAPTERS = {
    "trivium", "jax", "flax", "optax", "orbax", "numpy", "scipy", "matplotlib", "sklearn", "pandas",
    "keras", "tokenizers", "safetensors", "transformers", "tqdm", "IPython", "skimage", "PIL",
    "gguf", "jinja2", "fairlearn", "grain", "kagglehub", "treescope", "huggingface_hub",
    "threadpoolctl", "seqeval", "sacrebleu", "pycrfsuite",
}  # fmt: skip


def imported(source: str, package: str) -> set[str]:
    """Modules that the source imports, relative ones resolved within `package`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            if base == "trivium":
                names |= {f"trivium.{alias.name}" for alias in node.names}
            else:
                names.add(base)
    return names


def violations(files: dict[str, str]) -> list[str]:
    """Imports against the grain. files: path below src/ -> source."""
    found = []
    for path, source in sorted(files.items()):
        parts = Path(path).with_suffix("").parts
        if len(parts) < 2 or parts[:2] == ("trivium", "__init__"):
            continue
        part = parts[1]
        if part not in ALLOWED:
            found.append(f"{path}: say in ALLOWED what {part!r} may import")
            continue
        package = ".".join(parts[:-1])
        for name in sorted(imported(source, package)):
            top = name.split(".")[0]
            opened = ".".join(name.split(".")[:2]) if top == "trivium" else top
            own = opened == f"trivium.{part}"
            if not own and top not in sys.stdlib_module_names and opened not in ALLOWED[part]:
                found.append(f"{path}: {part} may not import {name}")
    return found


def package_files() -> dict[str, str]:
    """The package's sources."""
    source = ROOT / "src"
    return {
        file.relative_to(source).as_posix(): file.read_text(encoding="utf-8")
        for file in source.rglob("*.py")
    }


def test_imports_run_one_way():
    files = package_files()
    assert any(path.startswith("trivium/kernels/") for path in files)
    assert violations(files) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("trivium/kernels/made_up.py", "from trivium.models import Bert"),
        ("trivium/kernels/made_up.py", "import flax"),
        ("trivium/kernels/made_up.py", "from ..models import layers"),
        ("trivium/kernels/made_up.py", "def f():\n    import trivium.train"),
        ("trivium/models/made_up.py", "from trivium import train"),
        ("trivium/models/made_up.py", "import optax"),
        ("trivium/data/made_up.py", "import jax.numpy as jnp"),
        ("trivium/train/made_up.py", "from trivium.kernels import attention"),
        ("trivium/train/made_up.py", "from trivium.models import ConvClassifier"),
        ("trivium/figures.py", "import jax"),
        ("trivium/new_part.py", "import json"),
    ],
)
def test_a_back_edge_is_found(path, source):
    assert len(violations({path: source})) == 1


def test_the_package_is_empty_until_asked():
    """`import trivium` alone must not load a framework."""
    assert imported((ROOT / "src/trivium/__init__.py").read_text(), "trivium") <= {
        "importlib.metadata"
    }


@pytest.mark.parametrize("page", sorted(Book(ROOT).pages))
def test_chapters_import_the_package_and_the_libraries_of_the_book(page):
    wrong = set()
    for cell in Book(ROOT).pages[page].notebook.cells:
        if cell.cell_type == "code":
            lines = [line for line in cell.source.split("\n") if not line.startswith(("%", "!"))]
            names = {name.split(".")[0] for name in imported("\n".join(lines), "")}
            wrong |= names - CHAPTERS - sys.stdlib_module_names
    assert not wrong
