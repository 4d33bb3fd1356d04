"""Real weights for the models: checkpoints that are read as data, never unpickled."""

from trivium.pretrained import bert
from trivium.pretrained.bert import (
    Pretrained,
    first_layers,
    from_huggingface,
    save_huggingface,
    to_huggingface,
)
from trivium.pretrained.keras import from_keras, to_keras

__all__ = [
    "Pretrained",
    "first_layers",
    "from_huggingface",
    "from_keras",
    "load",
    "save_huggingface",
    "to_huggingface",
    "to_keras",
]

_CHECKPOINTS = {"minilm": bert.minilm}


def load(name: str) -> Pretrained:
    """Load one of the checkpoints that the book uses; "minilm" is all-MiniLM-L6-v2.

    The files are those of the package that the book installs, else they are fetched once from
    the Hugging Face hub; either way the weights must have the known SHA-256.

    Raises ValueError for an unknown name and for weights with another hash; ConnectionError
    where the hub cannot be reached.
    """
    if name not in _CHECKPOINTS:
        known = ", ".join(f'"{each}"' for each in _CHECKPOINTS)
        raise ValueError(f"unknown checkpoint {name!r}; known: {known}")
    return _CHECKPOINTS[name]()
