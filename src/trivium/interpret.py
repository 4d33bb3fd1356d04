"""Which part of an input an answer depends on: explanations as pure functions.

Each takes a function from inputs to logits, or what such a function left on its way. A class may
be one integer or an integer for each example.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def saliency(f: Callable[[jax.Array], jax.Array], x, label) -> jax.Array:
    """The gradient of a class's logit with respect to the input: x [B, ...] -> [B, ...].

    f: [B, ...] -> logits [B, K]; each example's logits must depend on that example alone.
    label: integer, or integers [B].
    Raises ValueError for an input that is not floating point, and for labels that do not fit.
    Source: Simonyan et al. 2014.
    """
    x, label = _checked(x, label)
    return jax.grad(lambda x: _logits(f, x, label).sum())(x)


def smooth_grad(f, x, label, *, key, samples=16, noise=0.15) -> jax.Array:
    """The mean of `saliency` over noisy copies of the input: x [B, ...] -> [B, ...].

    key: of the noise. samples: number of copies. noise: standard deviation, as a share of the
    range (largest minus smallest) of each example.
    Raises ValueError as `saliency` does, and for samples below 1 or noise below 0.
    Source: Smilkov et al. 2017.
    """
    x, label = _checked(x, label)
    if samples < 1 or noise < 0:
        raise ValueError(
            f"samples must be at least 1 and noise at least 0, not {samples} and {noise}"
        )
    axes = tuple(range(1, x.ndim))
    scale = noise * (x.max(axes, keepdims=True) - x.min(axes, keepdims=True))

    def add(total, key):
        noisy = x + scale * jax.random.normal(key, x.shape, x.dtype)
        return total + saliency(f, noisy, label), None

    return jax.lax.scan(add, jnp.zeros_like(x), jax.random.split(key, samples))[0] / samples


def integrated_gradients(f, x, label, *, baseline=None, steps=32) -> jax.Array:
    """Share out the difference that the input makes to a logit: x [B, ...] -> [B, ...].

    (x - baseline) times the mean gradient on the straight line from baseline to x, by the midpoint
    rule. With enough steps the shares of an example add up to f(x) - f(baseline): completeness.

    baseline: broadcastable to x; zeros by default. steps: points on the line.
    Raises ValueError as `saliency` does, and for steps below 1.
    Source: Sundararajan et al. 2017, eq. 1 and 3.
    """
    x, label = _checked(x, label)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    start = jnp.broadcast_to(jnp.asarray(0 if baseline is None else baseline, x.dtype), x.shape)

    def add(total, part):
        return total + saliency(f, start + part * (x - start), label), None

    parts = (jnp.arange(steps, dtype=x.dtype) + 0.5) / steps
    return (x - start) * jax.lax.scan(add, jnp.zeros_like(x), parts)[0] / steps


def grad_cam(head: Callable[[jax.Array], jax.Array], features, label) -> jax.Array:
    """Where the last feature maps speak for a class: features [B, H, W, C] -> [B, H, W].

    The maps, weighted by the mean gradient of the logit with respect to each and added up;
    negative values become 0.

    head: the rest of the network, from features to logits [B, K].
    Raises ValueError as `saliency` does, and for features of another rank.
    Source: Selvaraju et al. 2017, eq. 1 and 2.
    """
    features, label = _checked(features, label)
    if features.ndim != 4:
        raise ValueError(f"features must have shape [B, H, W, C], not {features.shape}")
    weights = saliency(head, features, label).mean((1, 2), keepdims=True)
    return jax.nn.relu((weights * features).sum(-1))


def attention_rollout(maps, *, residual=0.5) -> jax.Array:
    """How much of each input token is in each output token, if attention only mixed them.

    maps [layers, B, N, T, T], rows that sum to 1 -> [B, T, T], rows that sum to 1. The heads are
    averaged, and each layer passes on `residual` of every token unchanged.

    Raises ValueError for another rank and for a residual outside [0, 1].
    Source: Abnar and Zuidema 2020.
    """
    maps = jnp.asarray(maps)
    if maps.ndim != 5 or maps.shape[-1] != maps.shape[-2]:
        raise ValueError(f"maps must have shape [layers, B, N, T, T], not {maps.shape}")
    if not 0 <= residual <= 1:
        raise ValueError(f"residual must lie in [0, 1], not {residual}")
    same = jnp.eye(maps.shape[-1], dtype=maps.dtype)
    rolled = jnp.broadcast_to(same, (maps.shape[1], *same.shape))
    for layer in maps.mean(2):
        rolled = (residual * same + (1 - residual) * layer) @ rolled
    return rolled


def _checked(x, label):
    x, label = jnp.asarray(x), jnp.asarray(label)
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.ndim < 2:
        raise ValueError(f"x must be floating point of shape [B, ...], not {x.dtype} {x.shape}")
    if not jnp.issubdtype(label.dtype, jnp.integer) or label.shape not in ((), (len(x),)):
        raise ValueError(
            f"label must be an integer or integers of shape ({len(x)},), "
            f"not {label.dtype} of shape {label.shape}"
        )
    return x, jnp.broadcast_to(label, len(x))


def _logits(f, x, label):
    """The logit of each example's class: [B]."""
    return jnp.take_along_axis(f(x), label[:, None], axis=1)[:, 0]
