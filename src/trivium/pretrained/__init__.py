"""Real weights for the models: checkpoints that are read as data, never unpickled."""

from typing import Any

from trivium.pretrained import bert, efficientnet
from trivium.pretrained.bert import Pretrained, from_huggingface, to_huggingface
from trivium.pretrained.efficientnet import PretrainedEfficientNet

__all__ = ["Pretrained", "PretrainedEfficientNet", "from_huggingface", "load", "to_huggingface"]

_CHECKPOINTS = {"minilm": bert.minilm, "efficientnet-lite0": efficientnet.lite0}


def load(name: str) -> Any:
    """Load one of the checkpoints that the book uses.

    "minilm" is all-MiniLM-L6-v2, an encoder of sentences (a `Pretrained`): its files are those of
    the package that the book installs, else they are fetched once from the Hugging Face hub.
    "efficientnet-lite0" names what is on a photograph (a `PretrainedEfficientNet`): its files
    belong to the book's data. Either way the weights must have the known SHA-256.

    Raises ValueError for an unknown name and for weights with another hash; ConnectionError
    where the hub cannot be reached; `trivium.data.DownloadError` where the data cannot.
    """
    if name not in _CHECKPOINTS:
        known = ", ".join(f'"{each}"' for each in _CHECKPOINTS)
        raise ValueError(f"unknown checkpoint {name!r}; known: {known}")
    return _CHECKPOINTS[name]()
