"""A causal language model of interchangeable blocks: some mix positions, some features."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trivium.kernels import attention, lstm, rotary
from trivium.models.layers import LayerNorm, checked_ids
from trivium.models.recurrence import lstm_parameters

_EPSILON = 1e-5


class LanguageModel(nnx.Module):
    """Predict each next symbol of a sequence from those before it.

    vocabulary: number of symbols. width: numbers a position (D). blocks: modules that map
    [B, T, D] to ([B, T, D], balance) without looking ahead, such as `Block`; their order is free,
    and so is their kind. They are taken as they are, not copied.

    Raises ValueError where a size is not positive or there is no block.
    Source: Bengio et al. 2003 for the task; pre-norm residual blocks: Xiong et al. 2020.
    """

    def __init__(self, vocabulary: int, width: int, blocks, *, rngs: nnx.Rngs):
        check_sizes(vocabulary=vocabulary, width=width)
        self.embedding = nnx.Param(
            nnx.initializers.normal(width**-0.5)(rngs.params(), (vocabulary, width))
        )
        self.blocks = nnx.List(blocks)
        if not len(self.blocks):
            raise ValueError("blocks must hold at least one block")
        self.norm = LayerNorm(width, epsilon=_EPSILON)
        self.answer = linear(width, vocabulary, rngs=rngs)

    def __call__(self, ids) -> jax.Array:
        """Map ids [B, T] to logits [B, T, V]: at each position, of the symbol after it.

        Raises ValueError for ids that are not integers [B, T] or lie outside of the vocabulary;
        inside `jax.jit` values are unknown, and an id outside gives NaN.
        """
        return self.logits_and_balance(ids)[0]

    def logits_and_balance(self, ids) -> tuple[jax.Array, jax.Array]:
        """The logits [B, T, V], and the sum of the blocks' balance losses (0 without experts)."""
        x, balance = self._embed(ids), jnp.zeros(())
        for block in self.blocks:
            x, lost = block(x)
            balance = balance + lost
        return self.answer(self.norm(x)), balance

    def states(self, ids) -> list[jax.Array]:
        """What enters each block, and what leaves the last: arrays [B, T, D], for figures."""
        states = [self._embed(ids)]
        for block in self.blocks:
            states.append(block(states[-1])[0])
        return states

    def _embed(self, ids) -> jax.Array:
        ids = checked_ids("ids", ids, self.embedding.shape[0])
        return jnp.take(self.embedding[...], ids, axis=0)


class Block(nnx.Module):
    """Pre-norm residual block: mix positions, add; transform each position, add.

    mix: maps [B, T, D] to the same shape without looking ahead. transform: maps [B, T, D] to a
    pair, the same shape and a balance loss, as `FeedForward` and `MixtureOfExperts` do.
    """

    def __init__(self, width: int, mix, transform):
        self.mix = mix
        self.transform = transform
        self.norm_mix = LayerNorm(width, epsilon=_EPSILON)
        self.norm_transform = LayerNorm(width, epsilon=_EPSILON)

    def __call__(self, x) -> tuple[jax.Array, jax.Array]:
        """Map x [B, T, D] to the same shape, and hand on the transform's balance loss."""
        x = x + self.mix(self.norm_mix(x))
        change, balance = self.transform(self.norm_transform(x))
        return x + change, balance


class FeedForward(nnx.Module):
    """Two dense layers with GELU between them, for each position alone; nothing to balance."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs):
        check_sizes(width=width, hidden=hidden)
        self.expand = linear(width, hidden, rngs=rngs)
        self.contract = linear(hidden, width, rngs=rngs)

    def __call__(self, x) -> tuple[jax.Array, jax.Array]:
        """Map x [..., D] to the same shape and a balance loss of 0."""
        return self.contract(jax.nn.gelu(self.expand(x))), jnp.zeros(())


class CausalAttention(nnx.Module):
    """Each position attends to itself and to those before it; rotary embedding tells how far.

    heads divide the width into parts of even size. base: of the rotary embedding.
    Raises ValueError where they do not.
    Source: Vaswani et al. 2017; Su et al. 2021.
    """

    def __init__(self, width: int, heads: int, *, base: float = 1e4, rngs: nnx.Rngs):
        check_heads(width, heads, multiple=2)
        self.heads = heads
        self.base = base
        self.project = linear(width, 3 * width, rngs=rngs)
        self.mix = linear(width, width, rngs=rngs)

    def __call__(self, x) -> jax.Array:
        """Map x [B, T, D] to the same shape."""
        q, k, v = self.queries_keys_values(x)
        return self.mix(attention(q, k, v, causal=True).reshape(x.shape))

    def queries_keys_values(self, x) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries and keys, turned by their positions, and values: each [B, T, N, H]."""
        q, k, v = split_heads(self.project(x), self.heads)
        places = jnp.arange(x.shape[1])
        return rotary(q, places, base=self.base), rotary(k, places, base=self.base), v


class Recurrence(nnx.Module):
    """An LSTM along the positions, its state as wide as the model.

    Weights start as `LSTMClassifier`'s do. Source: Hochreiter and Schmidhuber 1997.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        check_sizes(width=width)
        self.w_ih, self.w_hh, self.b = lstm_parameters(width, width, rngs=rngs)

    def __call__(self, x) -> jax.Array:
        """Map x [B, T, D] to the same shape."""
        return lstm(x, self.w_ih[...], self.w_hh[...], self.b[...])[0]


class ShortConvolution(nnx.Module):
    """A causal convolution over a few positions, for each feature alone.

    features: numbers a position. taps: positions that are seen, one's own and those before it.
    What carries a state has no other way to tell the last symbol from the one before.
    """

    def __init__(self, features: int, taps: int, *, rngs: nnx.Rngs):
        check_sizes(features=features, taps=taps)
        start = nnx.initializers.normal(taps**-0.5)
        self.taps = nnx.Param(start(rngs.params(), (taps, features)))
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, x) -> jax.Array:
        """Map x [B, T, E] to the same shape."""
        taps = self.taps[...]
        count, steps = taps.shape[0], x.shape[1]
        padded = jnp.pad(x, ((0, 0), (count - 1, 0), (0, 0)))
        # As sums of shifted copies: a filter of a few taps on each feature has no matrix product.
        shifted = (padded[:, i : i + steps] * taps[i] for i in range(count))
        return sum(shifted, self.bias[...])


def linear(inputs: int, outputs: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """A dense layer without bias that keeps the size of the signal."""
    start = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
    return nnx.Linear(inputs, outputs, use_bias=False, kernel_init=start, rngs=rngs)


def split_heads(projected: jax.Array, heads: int) -> tuple[jax.Array, ...]:
    """[B, T, 3D] -> three arrays [B, T, heads, D / heads]."""
    batch, steps, _ = projected.shape
    parts = jnp.split(projected, 3, axis=-1)
    return tuple(part.reshape(batch, steps, heads, -1) for part in parts)


def check_sizes(**sizes: int) -> None:
    """Raise the ValueError that names a size below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")


def check_heads(width: int, heads: int, *, multiple: int = 1) -> None:
    """Raise ValueError unless the heads divide the width into parts of a multiple of `multiple`."""
    check_sizes(width=width, heads=heads)
    if width % (heads * multiple):
        raise ValueError(f"heads={heads} must divide width={width} into multiples of {multiple}")


def bits_per_symbol(model: LanguageModel, ids, *, window=256, context=64, batch=16) -> float:
    """Mean of -log2 p(next symbol) over ids [N], the first of which is only read: bits.

    The model sees windows of so many symbols. They overlap, so that every symbol but those of the
    first window is predicted from at least `context` before it, and each is counted once. batch:
    windows at a time; it changes the memory needed and not the result.

    Raises ValueError where ids are not integers [N] with N at least 2, or context is not in
    [0, window).
    """
    ids = np.asarray(ids)
    if ids.ndim != 1 or len(ids) < 2 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            f"ids must be integers [N], N at least 2, not {ids.dtype} {list(ids.shape)}"
        )
    check_sizes(window=window, batch=batch)
    if not 0 <= context < window:
        raise ValueError(f"context must lie in [0, window={window}), not {context}")
    stride = window - context
    count = max(0, -(-(len(ids) - 1 - window) // stride)) + 1
    count += -count % batch  # what is added lies past the end and counts nothing
    padded = np.pad(ids, (0, count * stride + window + 1 - len(ids)), mode="edge")
    starts = stride * np.arange(count)
    places = starts[:, None] + np.arange(window + 1)
    counted = places[:, 1:] < len(ids)
    counted[1:, :context] = False
    graphdef, state = nnx.split(model)
    total = _total_bits(
        graphdef,
        state,
        padded[places].astype(np.int32).reshape(-1, batch, window + 1),
        counted.reshape(-1, batch, window),
    )
    return float(np.asarray(total, np.float64).sum() / (len(ids) - 1))


@partial(jax.jit, static_argnums=0)
def _total_bits(graphdef, state, windows, counted):
    model = nnx.merge(graphdef, state)

    def of(batch):
        ids, real = batch
        logits = jax.nn.log_softmax(model(ids[:, :-1]))
        found = jnp.take_along_axis(logits, ids[:, 1:, None], axis=-1)[..., 0]
        return -jnp.sum(found, where=real) / jnp.log(2.0)

    return jax.lax.map(of, (windows, counted))
