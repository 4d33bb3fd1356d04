"""Models as flax.nnx modules, one file a family."""

from trivium.models.bert import Bert, BertClassifier, BertConfig, mean_pool
from trivium.models.convolution import ConvClassifier
from trivium.models.efficientnet import EfficientNet, EfficientNetConfig
from trivium.models.mlp import MLP
from trivium.models.recurrence import LSTMClassifier

__all__ = [
    "MLP",
    "Bert",
    "BertClassifier",
    "BertConfig",
    "ConvClassifier",
    "EfficientNet",
    "EfficientNetConfig",
    "LSTMClassifier",
    "mean_pool",
]
