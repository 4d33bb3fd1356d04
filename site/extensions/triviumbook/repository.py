"""Where the book's source lives: owner/name on GitHub, commit, and the addresses made from them."""

import os
import re
import subprocess
from pathlib import Path

GITHUB = re.compile(
    r"^(?:https://(?:[^@/]+@)?|ssh://git@|git@)github\.com[:/]([^/]+/[^/]+?)(?:\.git)?/?$"
)
NAME = re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        run = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def repository(root: Path) -> str | None:
    """The repository as "owner/name": the REPOSITORY variable, else git's origin, else None.

    Raises:
        ValueError: if REPOSITORY is set to something that is not "owner/name".
    """
    named = os.environ.get("REPOSITORY", "")
    if named:
        if not NAME.fullmatch(named):
            raise ValueError(f"REPOSITORY: expected 'owner/name', got {named!r}")
        return named
    match = GITHUB.match(_git(root, "remote", "get-url", "origin") or "")
    return match.group(1) if match else None


def revision(root: Path) -> str | None:
    """The commit checked out at `root`, or None outside of git."""
    return _git(root, "rev-parse", "--verify", "--quiet", "HEAD") or None


def modified(root: Path) -> bool:
    """Whether tracked files at `root` differ from the commit."""
    return bool(_git(root, "status", "--porcelain", "--untracked-files=no"))


def book_url(repository: str) -> str:
    """Where GitHub publishes the book, with a slash at the end."""
    owner, name = repository.split("/")
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def colab_url(repository: str, page: str) -> str:
    """Where Colab opens the notebook of `page` (such as "chapters/code/cnn")."""
    return f"https://colab.research.google.com/github/{repository}/blob/notebooks/{page}.ipynb"


def file_url(repository: str, revision: str, path: str) -> str:
    """Where GitHub shows the file at `path`."""
    return f"https://github.com/{repository}/blob/{revision}/{path}"
