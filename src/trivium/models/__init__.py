"""Models as flax.nnx modules, one file a family."""

from trivium.models.bert import Bert, BertClassifier, BertConfig, mean_pool
from trivium.models.convolution import ConvClassifier
from trivium.models.llama import KeyValueCache, Llama, LlamaConfig
from trivium.models.mlp import MLP
from trivium.models.recurrence import LSTMClassifier

__all__ = [
    "MLP",
    "Bert",
    "BertClassifier",
    "BertConfig",
    "ConvClassifier",
    "KeyValueCache",
    "LSTMClassifier",
    "Llama",
    "LlamaConfig",
    "mean_pool",
]
