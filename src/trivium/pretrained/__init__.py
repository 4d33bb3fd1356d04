"""Real weights for the models: checkpoints that are read as data, never unpickled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trivium.models import Bert, Llama
from trivium.pretrained import bert, efficientnet, files, llama
from trivium.pretrained.bert import Pretrained, first_layers, save_huggingface
from trivium.pretrained.efficientnet import PretrainedEfficientNet
from trivium.pretrained.keras import from_keras, to_keras
from trivium.pretrained.llama import PretrainedLlama, from_gguf
from trivium.pretrained.recipes import Recipe, recipe

__all__ = [
    "Pretrained",
    "PretrainedEfficientNet",
    "PretrainedLlama",
    "Recipe",
    "first_layers",
    "from_gguf",
    "from_huggingface",
    "from_keras",
    "load",
    "recipe",
    "save_huggingface",
    "to_huggingface",
    "to_keras",
]

_CHECKPOINTS: dict[str, Callable[..., Any]] = {
    "minilm": bert.minilm,
    "smollm2-135m": llama.smollm2,
    "efficientnet-lite0": efficientnet.lite0,
}
# Readers by the model_type of a config.json.
_FAMILIES: dict[str, Callable[..., Any]] = {"bert": bert.read, "llama": llama.read}


def load(name: str, **options: Any) -> Any:
    """Load one of the checkpoints that the book uses.

    "minilm" is all-MiniLM-L6-v2, an encoder of sentences, a `Pretrained`; "smollm2-135m" is
    SmolLM2-135M-Instruct, a `PretrainedLlama`, whose weights can be kept in bfloat16 with
    `dtype=jnp.bfloat16`; "efficientnet-lite0" names what is on a photograph, a
    `PretrainedEfficientNet`.

    The files of the first two are those of the package that the book installs, else they are
    fetched once from the Hugging Face hub; those of the third belong to the book's data. Weights
    with a known SHA-256 must have it. Of SmolLM2 the package has a version in about 4 bits a
    weight, the hub the original.

    Raises ValueError for an unknown name and for weights with another hash; ConnectionError
    where the hub cannot be reached; `trivium.data.DownloadError` where the data cannot.
    """
    if name not in _CHECKPOINTS:
        known = ", ".join(f'"{each}"' for each in _CHECKPOINTS)
        raise ValueError(f"unknown checkpoint {name!r}; known: {known}")
    return _CHECKPOINTS[name](**options)


def from_huggingface(
    folder_or_id: str | Path, *, revision: str | None = None, **options: Any
) -> Any:
    """Load any BERT encoder or Llama decoder from a folder or from the Hugging Face hub, by its id.

    The checkpoint must be in safetensors, whole or in shards; its config.json says which family
    it is of. A BERT may have the prefix "bert."; heads for other tasks are left out. Parameters
    become float32 whatever they are stored as; those of a Llama also bfloat16, with
    `dtype=jnp.bfloat16`.

    revision: branch, tag or commit on the hub.

    Returns a `Pretrained` or a `PretrainedLlama`.
    Raises ValueError where the folder, its config, its tokenizer or its weights are not those of
    a model of one of the two families, naming missing, unexpected and misshaped parameters; where
    there are only pickled weights, which can run code when read; and for an id or revision that
    the hub does not have. Raises NotImplementedError for variants that `Bert` and `Llama` do not
    compute, and ConnectionError where the hub cannot be reached.
    """
    folder = files.locate(folder_or_id, revision)
    kind = files.read_json(folder / "config.json").get("model_type")
    if kind not in _FAMILIES:
        known = " or ".join(f'"{each}"' for each in _FAMILIES)
        raise ValueError(
            f"{folder / 'config.json'} describes a model of type {kind!r}; only {known} can be "
            "loaded"
        )
    return _FAMILIES[kind](folder, **options)


def to_huggingface(model: Bert | Llama) -> dict[str, np.ndarray]:
    """The parameters of a model under Hugging Face's names, shaped as `transformers` expects.

    `safetensors.numpy.save_file` writes the result; `from_huggingface` reads it back unchanged.
    """
    return (llama if isinstance(model, Llama) else bert).to_huggingface(model)
