"""Weights between Keras and the models: plain arrays, so Keras itself is never imported."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from trivium.models import MLP, ConvClassifier, LSTMClassifier


def from_keras(model: ConvClassifier | LSTMClassifier | MLP, weights: Sequence[Any]) -> None:
    """Put a Keras model's weights into a model of the same architecture, in place.

    model: a ConvClassifier, LSTMClassifier or MLP of the right sizes; its own weights are replaced.
    weights: arrays as the Keras model's `get_weights()` gives them, layer after layer, with the
    kernel before the bias: Conv2D [KH, KW, C, F] and [F]; LSTM [D, 4H], [H, 4H] and [4H], gates in
    the order input, forget, cell, output; Dense [D, E] and [E]. They are stored in the type of the
    model's parameters.

    The layers in Keras must compute the same: Conv2D with padding "valid" and ReLU, MaxPooling2D,
    Flatten of channels-last maps; LSTM with `use_bias` and its default activations. Weights cannot
    tell.

    Raises ValueError where count or shapes differ (the model then keeps its own weights) or a
    value is not finite, and NotImplementedError for other models.
    """
    targets = _parameters(model)
    found = [np.asarray(value) for value in weights]
    shapes = {name: tuple(target.shape) for name, target in targets}
    if len(found) != len(targets):
        raise ValueError(
            f"weights must hold {len(targets)} arrays for {type(model).__name__} "
            f"({', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())}), "
            f"not {len(found)}"
        )
    for place, ((name, shape), value) in enumerate(zip(shapes.items(), found, strict=True)):
        if value.shape != shape:
            raise ValueError(
                f"weights[{place}] is {name} and must have shape {list(shape)}, "
                f"not {list(value.shape)}"
            )
        if not np.isfinite(value.astype(np.float32)).all():
            raise ValueError(f"weights[{place}], which is {name}, holds values that are not finite")
    for (_, target), value in zip(targets, found, strict=True):
        target[...] = jnp.asarray(value, target[...].dtype)


def to_keras(model: ConvClassifier | LSTMClassifier | MLP) -> list[np.ndarray]:
    """The model's weights in the order and the shapes that Keras's `set_weights` expects.

    The arrays are copies: Keras gives away the memory of those it holds while it trains.
    Raises NotImplementedError for models other than ConvClassifier, LSTMClassifier and MLP.
    """
    return [np.array(target[...]) for _, target in _parameters(model)]


def _parameters(model) -> list[tuple[str, nnx.Param]]:
    """Name and parameter, in the order of Keras's layers."""
    if isinstance(model, ConvClassifier):
        first = [("conv.kernel", model.conv.kernel), ("conv.bias", model.conv.bias)]
    elif isinstance(model, LSTMClassifier):
        first = [("w_ih", model.w_ih), ("w_hh", model.w_hh), ("b", model.b)]
    elif isinstance(model, MLP):
        first = [
            (f"hidden.{place}.{part}", getattr(layer, part))
            for place, layer in enumerate(model.hidden)
            for part in ("kernel", "bias")
        ]
    else:
        raise NotImplementedError(
            "only ConvClassifier, LSTMClassifier and MLP have a known counterpart in Keras, "
            f"not {type(model).__name__}"
        )
    return [*first, ("dense.kernel", model.dense.kernel), ("dense.bias", model.dense.bias)]
