"""Training: one compiled step, and what a long run needs around it.

`fit` trains an nnx model, `evaluate` scores it, `predict` applies it. Data is a pair
(inputs, labels); inputs are an array [N, ...], or a list of variable-length arrays
([T_i] or [T_i, D]) that are padded to a few shapes and handed to the model with their lengths.
"""

from trivium.train.evaluation import evaluate, predict
from trivium.train.history import History
from trivium.train.loop import fit
from trivium.train.nonfinite import NonFiniteLoss
from trivium.train.step import accuracy

__all__ = ["History", "NonFiniteLoss", "accuracy", "evaluate", "fit", "predict"]
