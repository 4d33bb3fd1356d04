"""Where weights lie: a package's folder, the hub's cache; found, checked, never unpickled."""

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any


def package_folder(package: str) -> Path | None:
    """The folder of an installed package that only carries files; nothing of it is imported."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations)))


def check_sha256(path: Path, expected: str) -> None:
    """Raise a ValueError that names the file and both hashes where they differ."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(f"{path} has SHA-256 {found}, expected {expected}")


# What a checkpoint in Hugging Face's form may consist of, of all that a repository may hold.
_CHECKPOINT = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "vocab.txt",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
]


def locate(folder_or_id: str | Path, revision: str | None) -> Path:
    """The folder of a checkpoint, here or, by its id, in the hub's cache.

    Raises ValueError for a folder that is not there and a revision of one that is; and as `fetch`.
    """
    folder = Path(folder_or_id)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(
                f"revision={revision!r} only means something on the hub, not for a folder"
            )
        return folder
    if isinstance(folder_or_id, Path) or folder.is_absolute():
        raise ValueError(f"no folder {folder}")
    return fetch(folder_or_id, revision, _CHECKPOINT)


def fetch(hub_id, revision, patterns) -> Path:
    """Download the files that match the patterns into the hub's cache; return their folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ValueError(
            f"{hub_id!r} is neither a folder here nor a model on the Hugging Face hub "
            f"(revision {revision or 'main'}): {error}"
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise ConnectionError(
            f"{hub_id!r} is not a folder here and could not be fetched from the Hugging Face "
            f"hub: {error}"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path.parent} has no {path.name}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content


def weight_files(folder: Path) -> list[Path]:
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        raise ValueError(
            f"{folder} has no model.safetensors. Pickled weights (pytorch_model.bin) can run code "
            "when read and are refused; where you trust them, convert them once with\n"
            "  transformers.AutoModel.from_pretrained(folder).save_pretrained(folder)"
        )
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ValueError(f"{index} must map parameters to files under weight_map")
    paths = []
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard:
            raise ValueError(f"{index} names {shard!r}: a shard must lie in the same folder")
        if not (folder / shard).is_file():
            raise ValueError(f"{index} names {shard}, which is not there")
        paths.append(folder / shard)
    return paths
