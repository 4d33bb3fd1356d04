"""What the book's own trainings left: weights in half precision and the record of the run."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from trivium.data import CorruptFileError, DownloadError, cache_folder
from trivium.data.files import own
from trivium.pretrained.files import read_json


@dataclass(frozen=True)
class Recipe:
    """One recipe's folder: `record`, what its runs wrote down, and a file of weights for each."""

    name: str
    record: dict[str, Any]

    def weights(self, run: str) -> dict[str, np.ndarray]:
        """The arrays of a run by name, in half precision as they are stored.

        Raises ValueError for an unknown run, and for weights with another hash than the record
        says.
        """
        runs = self.record["runs"]
        if run not in runs:
            raise ValueError(f"run: expected one of {', '.join(runs)}, received {run!r}")
        from safetensors.numpy import load

        return load(_read(self.name, f"{run}.safetensors", runs[run]["sha256"]))

    def read(self, file: str) -> bytes:
        """Another file of the recipe, such as a tokenizer, checked as the weights are."""
        files = self.record["budget"].get("files", {})
        if file not in files:
            raise ValueError(f"file: expected one of {', '.join(files)}, received {file!r}")
        return _read(self.name, file, files[file])

    def restore(self, run: str, model: nnx.Module) -> nnx.Module:
        """Put the weights of a run into a model of the same shapes, and hand the model back.

        Weights are its parameters and, where it normalizes by batch, the running statistics. The
        model need not hold numbers yet: `nnx.eval_shape(lambda: ...)` is enough, and fast.

        Raises ValueError for an unknown run, for weights with another hash than the record says,
        and for a model whose parameters have other names or shapes.
        """
        arrays = self.weights(run)
        state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
        flat = nnx.to_flat_state(state)
        there = {".".join(map(str, place)): leaf.shape for place, leaf in flat}
        stored = {name: array.shape for name, array in arrays.items()}
        if there != stored:
            differing = sorted(
                name for name in there.keys() | stored.keys() if there.get(name) != stored.get(name)
            )
            raise ValueError(
                f"model: its parameters are not those of {run!r}; they differ in "
                f"{', '.join(differing[:5])}"
            )
        loaded = [
            (place, leaf.replace(jnp.asarray(arrays[".".join(map(str, place))], jnp.float32)))
            for place, leaf in flat
        ]
        nnx.update(model, nnx.from_flat_state(loaded))
        return model


def recipe(name: str) -> Recipe:
    """The record and weights under `recipes/` of the repository, by the recipe's name.

    A checkout's own files are read; a copy of trivium that pip installed from a public repository
    downloads them from there, at the same commit.

    Raises ValueError for a name that is none, and DownloadError where the files are not to be had.
    """
    if not name.isidentifier():
        raise ValueError(f"name: expected a recipe's name, received {name!r}")
    return Recipe(name, read_json(_find(name, "record.json")))


def _read(name: str, file: str, sha256: str) -> bytes:
    path = _find(name, file)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise CorruptFileError(f"{path} has SHA-256 {found}, the record says {sha256}")
    return content


def _find(name: str, file: str) -> Path:
    source = Path(__file__).resolve().parents[2]
    if source.name == "src" and (source.parent / "recipes").is_dir():
        path = source.parent / "recipes" / name / file
        if not path.is_file():
            raise ValueError(f"there is no recipes/{name}/{file}: run make train-{name}")
        return path
    import pooch

    path = Path(cache_folder()) / "recipes" / name / file
    addresses = own(f"{name}/{file}", "recipes")
    # A record is fetched anew each time: one of another commit names other weights.
    if path.is_file() and (file != "record.json" or not addresses):
        return path
    if not addresses:
        raise DownloadError(f"recipes/{name}/{file} is in the repository: put it at {path}")
    try:
        pooch.retrieve(addresses[0], known_hash=None, fname=file, path=path.parent)
    except Exception as error:
        raise DownloadError(f"{addresses[0]} could not be downloaded: {error}") from error
    return path
