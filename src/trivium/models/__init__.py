"""Models as flax.nnx modules, one file a family."""

from trivium.models.bert import Bert, BertClassifier, BertConfig, mean_pool
from trivium.models.convolution import ConvClassifier
from trivium.models.low_rank import (
    LowRank,
    add_low_rank,
    low_rank_weights,
    merge_low_rank,
    set_low_rank_weights,
)
from trivium.models.mlp import MLP
from trivium.models.recurrence import LSTMClassifier

__all__ = [
    "MLP",
    "Bert",
    "BertClassifier",
    "BertConfig",
    "ConvClassifier",
    "LSTMClassifier",
    "LowRank",
    "add_low_rank",
    "low_rank_weights",
    "mean_pool",
    "merge_low_rank",
    "set_low_rank_weights",
]
