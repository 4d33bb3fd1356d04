"""Checks of arguments, made once before anything is trained."""

import jax
import numpy as np
import optax
from flax import nnx

from trivium.train import step

cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def check_model(model):
    """Raise TypeError unless model is an nnx module."""
    if not isinstance(model, nnx.Module):
        raise TypeError(f"model must be a flax.nnx.Module, got {type(model).__name__}")


def check_whole(least, **numbers):
    """Raise TypeError or ValueError unless each number is an integer of at least `least`."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def check_optimizer(optimizer):
    """Raise TypeError unless optimizer is an optax transformation."""
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            "optimizer must be an optax.GradientTransformation such as optax.adam(1e-3), "
            f"got {optimizer!r}"
        )


def check_stopping(patience, monitor, validation, metric):
    """Raise ValueError unless early stopping has what it needs."""
    if monitor not in ("validation_loss", "validation_metric"):
        raise ValueError(
            f"monitor must be 'validation_loss' or 'validation_metric', got {monitor!r}"
        )
    if patience is None:
        return
    check_whole(1, patience=patience)
    if validation is None:
        raise ValueError("patience needs validation, the data that decides when to stop")
    if monitor == "validation_metric" and metric is None:
        raise ValueError("monitor='validation_metric' needs a metric")


def check_call(program, leaves, examples, batch_size, name):
    """Trace a batch through model, loss and metric; raise what does not fit, without computing.

    examples: on the device. Labels are looked at where the loss is softmax cross-entropy or the
    metric accuracy: a label beyond the logits would train on garbage in silence.
    """
    labels = examples.labels
    width = None if examples.lengths is None else max(int(examples.lengths.max()), 1)
    program = program._replace(sharding=None)
    rows = jax.ShapeDtypeStruct((batch_size,), np.int32)
    logits, batch = jax.eval_shape(
        lambda rows: step.apply(program, leaves, examples, rows, width=width), rows
    )
    if program.loss is cross_entropy or program.metric is step.accuracy:
        shape = getattr(logits, "shape", None)
        if not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(
                f"{name}: labels must be integers, each the index of a class, got {labels.dtype}"
            )
        if shape is None or len(shape) != 2 or labels.ndim != 1:
            raise ValueError(
                f"{name}: expected labels [N] and logits [batch, classes], "
                f"got labels {labels.shape} and from the model {shape or type(logits).__name__}"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= shape[1]:
            raise ValueError(
                f"{name}: labels must lie in 0..{shape[1] - 1}, the model having {shape[1]} "
                f"logits, got {low}..{high}"
            )
    jax.eval_shape(lambda outputs, batch: step.scores(program, outputs, batch), logits, batch)
