"""The execution cache lives under a fingerprint of everything that the chapters run on.

Jupyter-cache compares code cells only: it would serve results of an older `src/`, other data, other
weights or other packages. Their fingerprint is therefore part of the cache's path.
"""

import hashlib
import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

# Recent fingerprints that stay, so that switching branches back does not execute everything.
KEPT = 3


def fingerprint(root: Path) -> str:
    """A hash of `src/`, `data/`, the recipes' results, the lock, Python and installed packages."""
    digest = hashlib.sha256(platform.python_version().encode())
    files = [
        file
        for folder in ("src", "data")
        for file in sorted((root / folder).rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
    ]
    # A recipe's folder holds its weights and record; the script beside it changes no chapter.
    files += sorted(file for file in (root / "recipes").glob("*/*") if file.suffix != ".pyc")
    for file in [*files, root / "requirements.lock"]:
        digest.update(f"\n{file.relative_to(root).as_posix()} ".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    installed = {f"{each.name}=={each.version}" for each in importlib.metadata.distributions()}
    digest.update("\n".join(sorted(installed)).encode())
    return digest.hexdigest()[:16]


def prune(folder: Path, current: str) -> None:
    """Remove all but the most recently used caches in `folder`; `current` is in use now."""
    (folder / current).mkdir(parents=True, exist_ok=True)
    os.utime(folder / current)
    caches = sorted(
        (each for each in folder.iterdir() if each.is_dir()),
        key=lambda each: each.stat().st_mtime,
        reverse=True,
    )
    for old in caches[KEPT:]:
        shutil.rmtree(old)


def _place(app: Sphinx, config: Config) -> None:
    folder = Path(app.outdir).parent / ".jupyter_cache"
    current = fingerprint(Path(app.srcdir))
    prune(folder, current)
    config.nb_execution_cache_path = str(folder / current)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", _place)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
