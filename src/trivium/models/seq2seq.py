"""From one sequence to another: a Transformer that reads the source and writes the target."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trivium.kernels import attention, rotary
from trivium.models.language import FeedForward, check_heads, check_sizes, linear
from trivium.models.layers import LayerNorm, checked_ids

_EPSILON = 1e-5


class Seq2Seq(nnx.Module):
    """Encoder-decoder Transformer, pre-norm, with one embedding for source, target and answer.

    vocabulary: symbols of both sides (V). width: numbers a position (D). positions: the most
    symbols of a source, and of a target (P). depth: blocks of the encoder, and of the decoder.
    dropout: while training (`model.train()`; off at first).

    Raises ValueError where a size is not positive or the heads do not divide the width.
    Source: Vaswani et al. 2017; pre-norm: Xiong et al. 2020; one embedding: Press and Wolf 2017.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        width: int,
        heads: int,
        hidden: int,
        depth: int,
        positions: int,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        check_sizes(vocabulary=vocabulary, hidden=hidden, depth=depth, positions=positions)
        check_heads(width, heads)
        normal = nnx.initializers.normal(width**-0.5)
        self.embedding = nnx.Param(normal(rngs.params(), (vocabulary, width)))
        self.source_places = nnx.Param(normal(rngs.params(), (positions, width)))
        self.target_places = nnx.Param(normal(rngs.params(), (positions, width)))
        sizes = (width, heads, hidden, dropout)
        self.encoder = nnx.List([EncoderBlock(*sizes, rngs=rngs) for _ in range(depth)])
        self.decoder = nnx.List([DecoderBlock(*sizes, rngs=rngs) for _ in range(depth)])
        self.norm_source = LayerNorm(width, epsilon=_EPSILON)
        self.norm_target = LayerNorm(width, epsilon=_EPSILON)
        self.dropout = nnx.Dropout(dropout, deterministic=True, rngs=rngs)

    @property
    def context(self) -> int:
        """The most symbols of a target, and of a source."""
        return self.target_places.shape[0]

    def __call__(self, sources, targets, *, source_lengths=None) -> jax.Array:
        """Logits of the symbol after each of the target's: [B, T, V].

        sources [B, S] and targets [B, T]: ids; source_lengths [B]: real symbols of each source,
        None is all. What stands behind a length changes nothing.
        Raises ValueError for ids that are not integers of such shapes, more than the positions, or
        outside of the vocabulary; inside `jax.jit` values are unknown, and an id outside gives NaN.
        """
        memory = self.encode(sources, lengths=source_lengths)
        x = self._embed("targets", targets, self.target_places)
        for block in self.decoder:
            x = block(x, memory, source_lengths)
        return self._answer(x)

    def encode(self, sources, *, lengths=None) -> jax.Array:
        """What the decoder attends to: sources [B, S] -> [B, S, D]."""
        x = self._embed("sources", sources, self.source_places)
        for block in self.encoder:
            x = block(x, lengths)
        return self.norm_source(x)

    def alignments(self, sources, targets, *, source_lengths=None) -> jax.Array:
        """How much each target place attends to each source place: [layers, B, N, T, S]."""
        memory = self.encode(sources, lengths=source_lengths)
        x = self._embed("targets", targets, self.target_places)
        found = []
        for block in self.decoder:
            found.append(block.alignment(x, memory, source_lengths))
            x = block(x, memory, source_lengths)
        return jnp.stack(found)

    def remember(self, batch: int, room: int, sources, lengths) -> "Seq2SeqCache":
        """The cache before the first symbol of each target: the sources, read."""
        memory = self.encode(sources, lengths=lengths)
        held = [block.cross.keys_values(memory) for block in self.decoder]
        heads = self.decoder[0].attend.heads
        empty = jnp.zeros((batch, room, heads, memory.shape[-1] // heads))
        layers = range(len(self.decoder))
        return Seq2SeqCache(
            keys=tuple(jnp.copy(empty) for _ in layers),
            values=tuple(jnp.copy(empty) for _ in layers),
            source_keys=tuple(k for k, _ in held),
            source_values=tuple(v for _, v in held),
            source_lengths=lengths,
            lengths=jnp.zeros(batch, jnp.int32),
        )

    def extend(self, ids, cache: "Seq2SeqCache", *, lengths=None):
        """Read more of the targets: the logits [B, V] of what follows, and the longer cache.

        ids [B, T]; lengths [B]: how many of them are real, at least 1; None is all.
        """
        ids = checked_places("ids", ids, self.embedding.shape[0], self.context)
        batch, steps = ids.shape
        lengths = jnp.full(batch, steps, jnp.int32) if lengths is None else jnp.asarray(lengths)
        places = cache.lengths[:, None] + jnp.arange(steps, dtype=jnp.int32)
        x = look_up(self.embedding, ids) + self.target_places.at[places].get(mode="clip")
        keys, values = [], []
        for i, block in enumerate(self.decoder):
            source = (cache.source_keys[i], cache.source_values[i], cache.source_lengths)
            x, k, v = block.extend(x, places, cache.keys[i], cache.values[i], source)
            keys.append(k)
            values.append(v)
        last = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)
        read = (cache.lengths + lengths).astype(jnp.int32)
        cache = cache._replace(keys=tuple(keys), values=tuple(values), lengths=read)
        return self._answer(last)[:, 0], cache

    def _embed(self, name, ids, places):
        ids = checked_places(name, ids, self.embedding.shape[0], places.shape[0])
        return self.dropout(look_up(self.embedding, ids) + places[: ids.shape[1]])

    def _answer(self, x):
        return self.norm_target(x) @ self.embedding[...].T


class Seq2SeqCache(NamedTuple):
    """Keys and values of a decoder; every array has the batch axis first.

    keys, values: of the targets read so far, for each layer [B, room, N, H]; source_keys,
    source_values: of the sources, for each layer [B, S, N, H]; source_lengths, lengths: int32 [B].
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    source_keys: tuple[jax.Array, ...]
    source_values: tuple[jax.Array, ...]
    source_lengths: jax.Array
    lengths: jax.Array


class Translation(nnx.Module):
    """A model together with the sources that it is to translate, as `trivium.generate` asks for it.

    model: a `Seq2Seq` or an `AttentionalLSTM`. sources: lists of ids, each of any length from 1 up
    to the model's context. A prompt for each source starts its target:

        generate(Translation(model, sources), [[BEGIN]] * len(sources), stop=[END])

    Sources are padded to a power of two, so that a few compiled programs serve all.
    Raises ValueError for sources that are empty, too long, or no ids of the model's.
    """

    def __init__(self, model, sources):
        self.model = model
        rows = [np.asarray(each) for each in sources]
        if not rows or any(row.ndim != 1 or not row.size for row in rows):
            raise ValueError("sources: expected lists of ids, at least one, none of them empty")
        kinds = {row.dtype.name for row in rows if not np.issubdtype(row.dtype, np.integer)}
        if kinds:
            raise ValueError(f"sources: expected integers, received {', '.join(sorted(kinds))}")
        lengths = np.array([len(row) for row in rows], np.int32)
        longest = int(lengths.max())
        width = min(max(16, 1 << (longest - 1).bit_length()), max(longest, model.context))
        ids = np.zeros((len(rows), width), np.int32)
        for place, row in zip(ids, rows, strict=True):
            place[: len(row)] = row
        checked_places("sources", ids, model.embedding.shape[0], model.context)
        self.sources = nnx.Variable(jnp.asarray(ids))
        self.source_lengths = nnx.Variable(jnp.asarray(lengths))

    @property
    def context(self) -> int:
        """The most symbols of a target."""
        return self.model.context

    def start(self, batch: int, room: int) -> Any:
        """A cache that holds the sources; raises ValueError unless there are `batch` of them."""
        if batch != len(self.source_lengths):
            raise ValueError(
                f"prompts: expected one for each of {len(self.source_lengths)} sources, "
                f"received {batch}"
            )
        graph, state = nnx.split(self.model)
        return _remember(graph, state, batch, room, self.sources[...], self.source_lengths[...])

    def extend(self, ids, cache, *, lengths=None):
        """Read more of the targets, as the model's own `extend`."""
        return self.model.extend(ids, cache, lengths=lengths)


@partial(jax.jit, static_argnums=(0, 2, 3))
def _remember(graph, state, batch, room, sources, lengths):
    return nnx.merge(graph, state).remember(batch, room, sources, lengths)


class EncoderBlock(nnx.Module):
    """Pre-norm block: every place attends to all; then each is transformed for itself.

    turned: queries and keys are turned by their places (rotary embedding), for models whose input
    does not tell the places.
    """

    def __init__(self, width, heads, hidden, dropout=0.0, *, turned=False, rngs: nnx.Rngs):
        self.norm_attend = LayerNorm(width, epsilon=_EPSILON)
        self.attend = MultiHead(width, heads, rngs=rngs)
        self.norm_transform = LayerNorm(width, epsilon=_EPSILON)
        self.transform = FeedForward(width, hidden, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, deterministic=True, rngs=rngs)
        self.turned = turned

    def __call__(self, x, lengths=None):
        """Map x [B, T, D] to the same shape; what is behind the lengths [B] is not attended to."""
        y = self.norm_attend(x)
        queries, (keys, values) = self.attend.queries(y), self.attend.keys_values(y)
        if self.turned:
            places = jnp.arange(x.shape[1])
            queries, keys = (rotary(each, places, base=1e4) for each in (queries, keys))
        x = x + self.dropout(self.attend(queries, keys, values, lengths=lengths))
        return x + self.dropout(self.transform(self.norm_transform(x))[0])


class DecoderBlock(nnx.Module):
    """Pre-norm block: attend to what came before, attend to the source, transform."""

    def __init__(self, width, heads, hidden, dropout=0.0, *, rngs: nnx.Rngs):
        self.norm_attend = LayerNorm(width, epsilon=_EPSILON)
        self.attend = MultiHead(width, heads, rngs=rngs)
        self.norm_cross = LayerNorm(width, epsilon=_EPSILON)
        self.cross = MultiHead(width, heads, rngs=rngs)
        self.norm_transform = LayerNorm(width, epsilon=_EPSILON)
        self.transform = FeedForward(width, hidden, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, deterministic=True, rngs=rngs)

    def __call__(self, x, memory, source_lengths=None):
        """Map x [B, T, D], given the memory [B, S, D], to the same shape."""
        x = self._before(x)
        source_keys, source_values = self.cross.keys_values(memory)
        return self._after(x, source_keys, source_values, source_lengths)

    def alignment(self, x, memory, source_lengths=None):
        """The weights [B, N, T, S] with which `__call__` attends to the memory."""
        keys, _ = self.cross.keys_values(memory)
        queries = self.cross.queries(self.norm_cross(self._before(x)))
        return attention_weights(queries, keys, source_lengths)

    def extend(self, x, places, keys, values, source):
        """The same for targets at places [B, T] that follow on a cache; and the longer cache."""
        y = self.norm_attend(x)
        row = jnp.arange(x.shape[0], dtype=jnp.int32)[:, None]
        keys, values = (
            held.at[row, places].set(new, mode="drop", unique_indices=True)
            for held, new in zip((keys, values), self.attend.keys_values(y), strict=True)
        )
        seen = jnp.arange(keys.shape[1]) <= places[:, None, :, None]
        x = x + self.attend(self.attend.queries(y), keys, values, mask=seen)
        return self._after(x, *source), keys, values

    def _before(self, x):
        y = self.norm_attend(x)
        queries, (keys, values) = self.attend.queries(y), self.attend.keys_values(y)
        return x + self.dropout(self.attend(queries, keys, values, causal=True))

    def _after(self, x, keys, values, lengths=None):
        queries = self.cross.queries(self.norm_cross(x))
        x = x + self.dropout(self.cross(queries, keys, values, lengths=lengths))
        return x + self.dropout(self.transform(self.norm_transform(x))[0])


class MultiHead(nnx.Module):
    """Several attentions side by side; queries may come from elsewhere than keys and values."""

    def __init__(self, width, heads, *, rngs: nnx.Rngs):
        check_heads(width, heads)
        self.heads = heads
        self.query = linear(width, width, rngs=rngs)
        self.key_value = linear(width, 2 * width, rngs=rngs)
        self.mix = linear(width, width, rngs=rngs)

    def __call__(self, queries, keys, values, **options):
        """Queries [B, T, N, H] on keys and values [B, S, N, H]: [B, T, D], with its options."""
        found = attention(queries, keys, values, **options)
        return self.mix(found.reshape(*found.shape[:2], -1))

    def queries(self, x):
        """Queries of x [B, T, D]: [B, T, N, H]."""
        return self.query(x).reshape(*x.shape[:2], self.heads, -1)

    def keys_values(self, x):
        """Keys and values of x [B, S, D]: each [B, S, N, H]."""
        batch, steps, _ = x.shape
        parts = jnp.split(self.key_value(x), 2, axis=-1)
        return tuple(part.reshape(batch, steps, self.heads, -1) for part in parts)


def attention_weights(q, k, lengths=None, *, scale=None):
    """Softmax(q kᵀ · scale) over the real keys: q [B, T, N, H], k [B, S, N, H] -> [B, N, T, S]."""
    scores = jnp.einsum("btnh,bsnh->bnts", q, k)
    scores = scores * (q.shape[-1] ** -0.5 if scale is None else scale)
    if lengths is None:
        return jax.nn.softmax(scores)
    real = jnp.arange(k.shape[1]) < jnp.asarray(lengths)[:, None, None, None]
    lowest = jnp.finfo(scores.dtype).min
    return jnp.where(real, jax.nn.softmax(jnp.where(real, scores, lowest)), 0.0)


def checked_places(name, ids, vocabulary, positions) -> jax.Array:
    """Integer ids [B, T] as `checked_ids` has them, and no more than there are positions."""
    ids = checked_ids(name, ids, vocabulary)
    if ids.shape[1] > positions:
        raise ValueError(
            f"{name}: expected at most {positions} symbols, the model's positions, received "
            f"{ids.shape[1]}: shorten or split the text"
        )
    return ids


def look_up(embedding, ids) -> jax.Array:
    """The vectors of ids [B, T], as long as the positions' that are added: [B, T, D]."""
    vectors = embedding.at[ids].get(mode="fill", fill_value=jnp.nan)
    return vectors * embedding.shape[1] ** 0.5
