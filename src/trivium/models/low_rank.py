"""Low-rank adaptation: train two thin matrices beside each dense layer, and leave the layer alone.

The weights W [D, F] of a trained layer stay as they are; what training adds to them is a product of
rank R, down [D, R] times up [R, F]. Only these are trained and need to be stored. Afterwards they
can be added into W, so that the adapted model costs no more than the one it came from.

Source: Hu et al. 2022.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class LowRank(nnx.Module):
    """A dense layer and its adapter: base(x) + scale · (x down) up.

    base: the layer, with kernel [D, F]. down [D, R]: normal with variance 1 / D. up [R, F]: zero,
    so that at first the layer answers as base alone does. Both are `nnx.LoRAParam`.
    """

    def __init__(self, base: nnx.Linear, rank: int, *, scale: float, rngs: nnx.Rngs):
        inputs, outputs = base.kernel.shape
        kind = base.kernel.dtype
        self.base = base
        self.scale = scale
        self.down = nnx.LoRAParam(
            jax.random.normal(rngs.params(), (inputs, rank), kind) / inputs**0.5
        )
        self.up = nnx.LoRAParam(jnp.zeros((rank, outputs), kind))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [..., D] to [..., F]."""
        return self.base(x) + self.scale * (x @ self.down[...]) @ self.up[...]

    def merged(self) -> nnx.Linear:
        """The base layer, with the adapter added into its kernel."""
        change = self.scale * (self.down[...] @ self.up[...])
        self.base.kernel[...] = self.base.kernel[...] + change
        return self.base


def add_low_rank(
    model: nnx.Module,
    rank: int,
    *,
    scale: float = 1.0,
    where: Callable[[str], bool] = lambda path: True,
    rngs: nnx.Rngs,
) -> list[str]:
    """Put an adapter around every dense layer of a model, in place; return the layers' paths.

    rank: columns of down and rows of up, at most the smaller side of each layer's kernel. scale:
    factor of the adapter's answer (Hu et al.'s α / rank). where: which layers, by their paths,
    such as "blocks.0.attend.project". rngs: draws down from its stream `params`.

    The answers do not change until the adapters are trained:
    `train.fit(..., trainable=nnx.LoRAParam)` trains them and nothing else.

    Raises ValueError where the rank does not fit a layer, where no layer is found, and for a model
    that has adapters already; NotImplementedError for a layer that stands in several places.
    """
    if type(rank) is not int or rank < 1:
        raise ValueError(f"rank must be an integer of at least 1, not {rank!r}")
    if not np.isfinite(scale) or scale == 0:
        raise ValueError(f"scale must be a finite number other than 0, not {scale!r}")
    if any(True for _ in _layers(model, LowRank)):
        raise ValueError("model: has low-rank adapters already; merge them first")
    chosen = [each for each in _layers(model, nnx.Linear) if where(".".join(each[0]))]
    if not chosen:
        raise ValueError("model: expected a dense layer (nnx.Linear) that where selects, got none")
    if len({id(layer) for _, layer in chosen}) < len(chosen):
        raise NotImplementedError("a dense layer that stands in several places of the model")
    for path, layer in chosen:
        if rank > min(layer.kernel.shape):
            raise ValueError(
                f"rank must be at most {min(layer.kernel.shape)} for {'.'.join(path)} with kernel "
                f"{layer.kernel.shape}, not {rank}"
            )
    for path, layer in chosen:
        _replace(model, path, LowRank(layer, rank, scale=scale, rngs=rngs))
    return [".".join(path) for path, _ in chosen]


def merge_low_rank(model: nnx.Module) -> None:
    """Add every adapter into its layer's kernel and take the adapter away, in place.

    The model then has the layers, names and cost that it had before `add_low_rank`.
    Raises ValueError for a model without adapters.
    """
    for path, layer in _adapted(model):
        _replace(model, path, layer.merged())


def low_rank_weights(model: nnx.Module) -> dict[str, np.ndarray]:
    """The adapters' matrices: {"blocks.0.attend.project.down": [D, R], "….up": [R, F], ...}.

    Raises ValueError for a model without adapters.
    """
    return {
        f"{'.'.join(path)}.{name}": np.asarray(getattr(layer, name)[...])
        for path, layer in _adapted(model)
        for name in ("down", "up")
    }


def set_low_rank_weights(model: nnx.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Put matrices, as from `low_rank_weights`, into a model's adapters.

    They take the type of the adapters' own, whatever they are stored as. Raises ValueError, and
    changes nothing, where names or shapes are not those of the model's adapters.
    """
    own = low_rank_weights(model)
    if missing := sorted(own.keys() - weights.keys()):
        raise ValueError(f"weights: expected {len(own)} matrices, missing {missing[0]}")
    if unknown := sorted(weights.keys() - own.keys()):
        raise ValueError(f"weights: the model has no adapter for {unknown[0]}")
    for name, old in own.items():
        if np.shape(weights[name]) != old.shape:
            raise ValueError(
                f"weights: expected {name} of shape {old.shape}, got {np.shape(weights[name])}"
            )
    for path, layer in _adapted(model):
        for name in ("down", "up"):
            variable = getattr(layer, name)
            variable[...] = jnp.asarray(weights[f"{'.'.join(path)}.{name}"], variable.dtype)


def _layers(model, kind) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, layer) for every layer of a kind; the order is that of the names."""
    for path, module in nnx.iter_modules(model):
        for name, value in sorted(vars(module).items()):
            if type(value) is kind:
                yield (*map(str, path), name), value


def _adapted(model) -> list[tuple[tuple[str, ...], LowRank]]:
    found = list(_layers(model, LowRank))
    if not found:
        raise ValueError("model: expected low-rank adapters, got none; see add_low_rank")
    return found


def _replace(model, path, layer) -> None:
    """Put a layer in the place that path names."""
    parent = model
    for name in path[:-1]:
        parent = parent[int(name)] if name.isdigit() else getattr(parent, name)
    setattr(parent, path[-1], layer)
