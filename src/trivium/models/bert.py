"""The attention family: BERT, an encoder that reads a sentence in both directions at once."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trivium.kernels import attention
from trivium.models.layers import LayerNorm, checked_ids

# "gelu" is x Φ(x) with the exact normal distribution; the others are its tanh approximation.
_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT, under the names of Hugging Face's config.json.

    The defaults are bert-base-uncased: 109 million parameters.
    Raises ValueError where a size is not a positive integer, the heads do not divide the width,
    a dropout rate is outside [0, 1), or the activation is unknown.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12

    def __post_init__(self):
        """Refuse sizes that no model can have."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise ValueError(f"{field.name} must be a positive integer, not {value!r}")
            if field.type is float and not (
                isinstance(value, int | float) and math.isfinite(value) and value >= 0
            ):
                raise ValueError(f"{field.name} must be a number of at least 0, not {value!r}")
        if self.layer_norm_eps == 0:
            raise ValueError("layer_norm_eps must be above 0")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1, not {getattr(self, name)}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must divide "
                f"hidden_size={self.hidden_size}"
            )
        if self.hidden_act not in _ACTIVATIONS:
            raise ValueError(
                f"hidden_act must be one of {', '.join(_ACTIVATIONS)}, not {self.hidden_act!r}"
            )


class Bert(nnx.Module):
    """Embed tokens, then let every token look at every other, layer after layer.

    embed: words, positions and segments become vectors. blocks: the encoder's layers.

    Dropout is off until `model.train()` and off again after `model.eval()`. Each dropout draws
    from a stream of its own (`rngs.dropout`) that is part of the model's state: a step compiled
    with `nnx.split` and `nnx.merge` must hand the changed state back, or masks repeat.

    Source: Devlin et al. 2019; the encoder is that of Vaswani et al. 2017 (post-norm).
    """

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embeddings(config, rngs=rngs)
        self.blocks = nnx.List(
            [EncoderBlock(config, rngs=rngs) for _ in range(config.num_hidden_layers)]
        )

    def __call__(self, ids, *, mask=None, segments=None, rngs=None) -> jax.Array:
        """Map token ids [B, T] to their last hidden states [B, T, D].

        mask [B, T]: boolean, False for padding, which nothing then attends to.
        segments [B, T]: 0 for the first sentence, 1 for the second; all 0 by default.
        rngs: used by dropout instead of the model's own streams.

        Raises ValueError for ids that are not integers [B, T], are longer than
        `max_position_embeddings` or outside the vocabulary, and for a mask or segments that do
        not fit. Inside `jax.jit` values are unknown: an id outside gives NaN.
        """
        x, mask = self._start(ids, mask, segments, rngs)
        for block in self.blocks:
            x = block(x, mask=mask, rngs=rngs)
        return x

    def hidden_states(self, ids, *, mask=None, segments=None) -> jax.Array:
        """The output of the embeddings and of every layer: [layers + 1, B, T, D]."""
        x, mask = self._start(ids, mask, segments)
        states = [x]
        for block in self.blocks:
            states.append(block(states[-1], mask=mask))
        return jnp.stack(states)

    def attention_maps(self, ids, *, mask=None, segments=None) -> jax.Array:
        """How much each token (row) attends to each token (column): [layers, B, heads, T, T].

        float32; a row sums to 1, or to 0 where every token is masked. Takes memory for every
        pair of tokens, which `__call__` avoids.
        """
        x, mask = self._start(ids, mask, segments)
        maps = []
        for block in self.blocks:
            maps.append(block.attend.weights(x, mask=mask))
            x = block(x, mask=mask)
        return jnp.stack(maps)

    def _start(self, ids, mask, segments, rngs=None):
        """Check the inputs; embed them, and shape the mask [B, T] for attention: [B, 1, 1, T]."""
        ids = checked_ids("ids", ids, self.config.vocab_size)
        if ids.shape[1] > self.config.max_position_embeddings:
            raise ValueError(
                f"ids have {ids.shape[1]} tokens, but the model has only "
                f"{self.config.max_position_embeddings} positions: truncate them"
            )
        if segments is not None:
            segments = checked_ids("segments", segments, self.config.type_vocab_size)
            if segments.shape != ids.shape:
                raise ValueError(f"segments must have shape {ids.shape}, not {segments.shape}")
        if mask is not None:
            mask = _checked_mask(mask, ids.shape)[:, None, None, :]
        return self.embed(ids, segments=segments, rngs=rngs), mask


class Embeddings(nnx.Module):
    """The sum of a vector for the word, one for its position and one for its segment."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(config.initializer_range)
        width = config.hidden_size
        self.words = nnx.Param(normal(rngs.params(), (config.vocab_size, width)))
        self.positions = nnx.Param(normal(rngs.params(), (config.max_position_embeddings, width)))
        self.segments = nnx.Param(normal(rngs.params(), (config.type_vocab_size, width)))
        self.norm = LayerNorm(width, epsilon=config.layer_norm_eps)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob, deterministic=True, rngs=rngs)

    def __call__(self, ids, *, segments=None, rngs=None):
        """Map ids [B, T] to vectors [B, T, D]."""
        x = jnp.take(self.words[...], ids, axis=0) + self.positions[: ids.shape[1]]
        if segments is None:
            x = x + self.segments[0]
        else:
            x = x + jnp.take(self.segments[...], segments, axis=0)
        return self.dropout(self.norm(x), rngs=rngs)


class EncoderBlock(nnx.Module):
    """Post-norm Transformer block: attend, add, normalize; transform, add, normalize."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.attend = SelfAttention(config, rngs=rngs)
        self.transform = FeedForward(config, rngs=rngs)
        self.norm_attend = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)
        self.norm_transform = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob, deterministic=True, rngs=rngs)

    def __call__(self, x, *, mask=None, rngs=None):
        """Map x [B, T, D] to the same shape."""
        x = self.norm_attend(x + self.dropout(self.attend(x, mask=mask, rngs=rngs), rngs=rngs))
        return self.norm_transform(x + self.dropout(self.transform(x), rngs=rngs))


class SelfAttention(nnx.Module):
    """Every token asks, every token answers: several attentions side by side, then mixed.

    project: queries, keys and values from one product [D, 3D]. mix: the heads put together.
    """

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        linear = partial(
            nnx.Linear, kernel_init=nnx.initializers.normal(config.initializer_range), rngs=rngs
        )
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.project = linear(width, 3 * width)
        self.mix = linear(width, width)
        self.dropout = nnx.Dropout(
            config.attention_probs_dropout_prob, deterministic=True, rngs=rngs
        )

    def __call__(self, x, *, mask=None, rngs=None):
        """Map x [B, T, D] to the same shape; mask broadcasts to [B, N, T, T]."""
        q, k, v = self.queries_keys_values(x)
        if self.dropout.deterministic or self.dropout.rate == 0:
            answers = attention(q, k, v, mask=mask)
        else:
            # Dropout acts on the weights, so here they have to exist as an array.
            weights = self.dropout(_attention_weights(q, k, mask), rngs=rngs)
            answers = jnp.einsum("bnts,bsnh->btnh", weights.astype(v.dtype), v)
        return self.mix(answers.reshape(x.shape))

    def weights(self, x, *, mask=None):
        """The attention weights [B, N, T, T] that `__call__` uses on x, float32."""
        q, k, _ = self.queries_keys_values(x)
        return _attention_weights(q, k, mask)

    def queries_keys_values(self, x):
        """Three projections of x [B, T, D], each split into heads: [B, T, N, H]."""
        batch, length, _ = x.shape
        return (
            part.reshape(batch, length, self.heads, -1)
            for part in jnp.split(self.project(x), 3, axis=-1)
        )


class FeedForward(nnx.Module):
    """Two dense layers with an activation between them, for each token alone."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        linear = partial(
            nnx.Linear, kernel_init=nnx.initializers.normal(config.initializer_range), rngs=rngs
        )
        self.expand = linear(config.hidden_size, config.intermediate_size)
        self.contract = linear(config.intermediate_size, config.hidden_size)
        self.activation = config.hidden_act

    def __call__(self, x):
        """Map x [B, T, D] to the same shape."""
        return self.contract(_ACTIVATIONS[self.activation](self.expand(x)))


class BertClassifier(nnx.Module):
    """Classify sentences: BERT, one vector for each sentence, dropout, a dense layer.

    bert: the encoder, usually pretrained; it is trained along. classes: number of classes.
    dropout: rate for the sentence's vector while training (`model.train()`; off at first).
    pool: "mean" averages the hidden states of the real tokens, "first" takes that of the first.

    Raises ValueError for a pool, a rate or a number of classes that cannot be.
    Source: Devlin et al. 2019 (first token); Reimers and Gurevych 2019 (mean).
    """

    def __init__(self, bert: Bert, classes, *, dropout=0.1, pool="mean", rngs: nnx.Rngs):
        if classes < 1:
            raise ValueError(f"classes must be at least 1, not {classes}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {dropout}")
        if pool not in ("mean", "first"):
            raise ValueError(f'pool must be "mean" or "first", not {pool!r}')
        self.bert = bert
        self.pool = pool
        self.dropout = nnx.Dropout(dropout, deterministic=True, rngs=rngs)
        self.dense = nnx.Linear(
            bert.config.hidden_size,
            classes,
            kernel_init=nnx.initializers.normal(bert.config.initializer_range),
            rngs=rngs,
        )

    def __call__(self, ids, *, lengths=None, mask=None, segments=None) -> jax.Array:
        """Map token ids [B, T] to logits [B, classes].

        lengths [B]: number of real tokens of each row, the rest is padding. mask [B, T]: boolean,
        True for real tokens; with both, a token is real where both say so. A row without any is
        answered from zeros. Raises ValueError as `Bert` does, and for lengths outside [0, T].
        """
        if lengths is not None:
            real = _length_mask(lengths, jnp.shape(ids))
            mask = real if mask is None else real & _checked_mask(mask, real.shape)
        states = self.bert(ids, mask=mask, segments=segments)
        pooled = mean_pool(states, mask=mask) if self.pool == "mean" else states[:, 0]
        return self.dense(self.dropout(pooled.astype(self.dense.kernel.dtype)))


def mean_pool(states, *, mask=None) -> jax.Array:
    """Average the states [B, T, D] of the real tokens (mask [B, T], True) to [B, D].

    A row without real tokens gives zeros. Source: Reimers and Gurevych 2019.
    """
    if mask is None:
        return states.mean(axis=1)
    total = jnp.sum(states, axis=1, where=mask[:, :, None])
    return total / jnp.maximum(mask.sum(axis=1), 1)[:, None].astype(states.dtype)


def _attention_weights(q, k, mask=None):
    """softmax(q kᵀ / √H) over the keys: q [B, T, N, H], k [B, S, N, H] -> [B, N, T, S]."""
    # Added up in float32 at least, as the kernel does.
    total = jnp.float64 if q.dtype == jnp.float64 else jnp.float32
    scores = jnp.einsum("btnh,bsnh->bnts", q, k, preferred_element_type=total)
    scores = scores / math.sqrt(q.shape[-1])
    if mask is None:
        return jax.nn.softmax(scores)
    # The lowest number instead of -inf: a row without any key must not become NaN.
    lowest = jnp.finfo(scores.dtype).min
    return jnp.where(mask, jax.nn.softmax(jnp.where(mask, scores, lowest)), 0.0)


def _checked_mask(mask, shape):
    mask = jnp.asarray(mask)
    if mask.shape != tuple(shape) or mask.dtype != bool:
        raise ValueError(
            f"mask must be boolean of shape {tuple(shape)}, True for real tokens, "
            f"not {mask.dtype} of shape {mask.shape}"
        )
    return mask


def _length_mask(lengths, shape):
    """From lengths [B] to a mask [B, T], True for the first `lengths` tokens of each row."""
    if not isinstance(lengths, jax.Array):
        lengths = np.asarray(lengths)
    batch, steps = shape
    if lengths.shape != (batch,) or not np.issubdtype(lengths.dtype, np.integer):
        raise ValueError(
            f"lengths must be integers of shape ({batch},), not {lengths.dtype} of shape "
            f"{lengths.shape}"
        )
    if not isinstance(lengths, jax.core.Tracer) and lengths.size:
        known = np.asarray(lengths)
        low, high = int(known.min()), int(known.max())
        if low < 0 or high > steps:
            raise ValueError(f"lengths must lie in [0, {steps}], not reach from {low} to {high}")
    return jnp.arange(steps) < jnp.asarray(lengths)[:, None]
