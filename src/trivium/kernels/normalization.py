"""Normalization: every vector of features is brought to one scale."""

from functools import partial

import jax
import jax.numpy as jnp

from trivium.kernels import checks, dispatch


def layer_norm(x, scale, offset, *, epsilon, implementation=None) -> jax.Array:
    """Layer normalization: (x - mean) / sqrt(variance + epsilon) * scale + offset.

    x [..., C], scale [C], offset [C] -> [..., C], of x's type; mean and (biased) variance are each
    vector's own, over the C features.

    epsilon: a number above 0; 1e-5 in PyTorch, 1e-12 in BERT.
    implementation: "reference"; "pallas", written by hand for GPU and TPU; None the fastest here.

    Calculated in float32 (float64 where an input is float64); scale and offset may be of another
    floating type than x. Can be differentiated in forward and reverse mode, "pallas" once and in
    reverse mode.
    Raises `ValueError` naming the argument where shapes, types or options do not fit, and
    `NotImplementedError` for what "pallas" does not have.
    Source: Ba, Kiros and Hinton, "Layer normalization", 2016.
    """
    sizes: dict[str, int] = {}
    x = checks.array("x", x, "... C", sizes)
    checks.require(sizes["C"] > 0, "x", "shape [..., C] with C at least 1", x.shape)
    scale = checks.array("scale", scale, "C", sizes)
    offset = checks.array("offset", offset, "C", sizes)
    epsilon = checks.positive("epsilon", epsilon)
    if dispatch.choose("layer_norm", implementation) == "pallas":
        return _by_hand("layer_norm", x, scale, offset, epsilon=epsilon, target=dispatch.target())
    return _layer_norm(x, scale, offset, epsilon=epsilon)


def rms_norm(x, scale, *, epsilon, implementation=None) -> jax.Array:
    """Root-mean-square normalization: x / sqrt(mean(x^2) + epsilon) * scale.

    x [..., C], scale [C] -> [..., C], of x's type; the mean is each vector's own, over the C
    features.

    epsilon: a number above 0; 1e-5 or 1e-6 in Llama.

    Implementations, types, differentiation and errors: as in `layer_norm`.
    Source: Zhang and Sennrich, "Root mean square layer normalization", 2019.
    """
    sizes: dict[str, int] = {}
    x = checks.array("x", x, "... C", sizes)
    checks.require(sizes["C"] > 0, "x", "shape [..., C] with C at least 1", x.shape)
    scale = checks.array("scale", scale, "C", sizes)
    epsilon = checks.positive("epsilon", epsilon)
    if dispatch.choose("rms_norm", implementation) == "pallas":
        return _by_hand("rms_norm", x, scale, epsilon=epsilon, target=dispatch.target())
    return _rms_norm(x, scale, epsilon=epsilon)


@partial(jax.jit, static_argnames="epsilon")
def _layer_norm(x, scale, offset, *, epsilon):
    wide, scale, offset = _widen(x, scale, offset)
    # From the centered values: mean(x^2) - mean(x)^2 cancels where the mean is large.
    centered = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
    return (centered * jax.lax.rsqrt(variance + epsilon) * scale + offset).astype(x.dtype)


@partial(jax.jit, static_argnames="epsilon")
def _rms_norm(x, scale, *, epsilon):
    wide, scale = _widen(x, scale)
    mean = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(mean + epsilon) * scale).astype(x.dtype)


@partial(jax.jit, static_argnames=("name", "epsilon", "target"))
def _by_hand(name, *arrays, epsilon, target):
    from trivium.kernels.pallas import normalization as by_hand

    return getattr(by_hand, name)(*arrays, epsilon=epsilon, target=target)


def _widen(*arrays):
    kind = max((checks.accumulation(array.dtype) for array in arrays), key=lambda k: k.itemsize)
    return (array.astype(kind) for array in arrays)
