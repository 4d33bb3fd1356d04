"""Convolutional networks small enough to travel in a page: folded, and rounded to eight bits."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trivium.kernels import quantize
from trivium.models.resnet import ConvNorm

Model = TypeVar("Model", bound=nnx.Module)


def page_layers(model: nnx.Module) -> dict[str, dict[str, Any]]:
    """Every convolution and dense layer of a model as bytes, for `site/widgets/residual.js`.

    model: a `ResNet`, `Detector` or `UNet`, with the batch statistics it shall use. The name of a
    layer is its place, such as "backbone.stem". Of each:

    codes: uint8 [side * side * C, F], 128 standing for zero. scales, bias: float32 [F]. The layer
    maps x to x * ((codes - 128) scales) + bias: normalization by batch statistics is linear, so it
    is folded into kernel and bias. side: of the filters; 1 for a dense layer.

    Raises ValueError where a model has no such layer.
    Source: Jacob et al. 2018.
    """
    layers = {}
    for name, layer in _layers(model):
        kernel, bias = _folded(layer)
        side = kernel.shape[0] if kernel.ndim == 4 else 1
        rounded = quantize(kernel.reshape(-1, kernel.shape[-1]))
        layers[name] = {
            "codes": (np.asarray(rounded.codes).astype(np.int16) + 128).astype(np.uint8),
            "scales": np.asarray(rounded.scales[0]),
            "bias": np.asarray(bias),
            "side": side,
        }
    if not layers:
        raise ValueError(f"model must have convolutions, {type(model).__name__} has none")
    return layers


def with_page_layers(model: Model, layers: Mapping[str, Mapping[str, Any]]) -> Model:
    """A copy of a model, in use, that computes what the page computes: with rounded weights.

    layers: what `page_layers` returned for a model of these sizes.
    Raises ValueError where names or shapes differ.
    """
    model = nnx.clone(model)
    model.eval()
    found = dict(_layers(model))
    if set(found) != set(layers):
        raise ValueError(
            f"layers must be those of the model; they differ in {sorted(set(found) ^ set(layers))}"
        )
    for name, layer in found.items():
        codes = np.asarray(layers[name]["codes"]).astype(np.float32) - 128
        kernel, bias = codes * layers[name]["scales"], jnp.asarray(layers[name]["bias"])
        shape = layer.kernel.shape
        if kernel.shape != (np.prod(shape[:-1]), shape[-1]) or bias.shape != shape[-1:]:
            raise ValueError(f"layers: {name} must be [{np.prod(shape[:-1])}, {shape[-1]}], not "
                             f"{list(kernel.shape)}")  # fmt: skip
        layer.kernel[...] = jnp.asarray(kernel.reshape(shape))
        if isinstance(layer, ConvNorm):
            norm: Any = layer.norm
            norm.scale[...], norm.bias[...] = jnp.ones_like(bias), bias
            norm.mean[...], norm.var[...] = jnp.zeros_like(bias), jnp.ones_like(bias) - norm.epsilon
        elif layer.bias is not None:
            layer.bias[...] = bias
    return model


def _layers(model: nnx.Module) -> Iterator[tuple[str, Any]]:
    for place, part in nnx.iter_graph(model):
        if isinstance(part, ConvNorm | nnx.Linear):
            yield ".".join(map(str, place)), part


def _folded(layer: Any) -> tuple[jax.Array, jax.Array]:
    """Kernel and bias of a layer whose normalization uses its running statistics."""
    kernel = layer.kernel[...]
    if isinstance(layer, ConvNorm):
        norm: Any = layer.norm
        factor = norm.scale[...] * jax.lax.rsqrt(norm.var[...] + norm.epsilon)
        return kernel * factor, norm.bias[...] - norm.mean[...] * factor
    if layer.bias is None:
        return kernel, jnp.zeros(kernel.shape[-1], kernel.dtype)
    return kernel, layer.bias[...]
