"""An LSTM that attends to what it translates: the Transformer's forerunner and its peer here."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from trivium.kernels import attention
from trivium.models.language import check_sizes, linear
from trivium.models.recurrence import LSTM
from trivium.models.seq2seq import attention_weights, checked_places, look_up


class AttentionalLSTM(nnx.Module):
    """An LSTM reads the source in both directions; another writes, and looks back at each step.

    vocabulary: symbols of both sides (V). width: of the embedding. hidden: of the decoder's state
    (H, even: half of it for each direction of the encoder). positions: the most symbols of a source
    and of a target, so that it and `Seq2Seq` can be compared; the recurrence itself has no limit.

    Before a symbol is answered, the decoder's state h asks the encoder's outputs, softmax(h A m),
    and what it finds joins it: tanh([h, context] C). What is found is not fed back, so that the
    decoder's recurrence runs through a whole target at once.

    Raises ValueError where a size is not positive or hidden is odd.
    Source: Bahdanau, Cho and Bengio 2015; this form: Luong, Pham and Manning 2015 ("general").
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        width: int,
        hidden: int,
        positions: int,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        check_sizes(vocabulary=vocabulary, width=width, hidden=hidden, positions=positions)
        if hidden % 2:
            raise ValueError(f"hidden must be even, one half for each direction, not {hidden}")
        normal = nnx.initializers.normal(width**-0.5)
        self.embedding = nnx.Param(normal(rngs.params(), (vocabulary, width)))
        self.positions = positions
        self.forth = LSTM(width, hidden // 2, rngs=rngs)
        self.back = LSTM(width, hidden // 2, rngs=rngs)
        self.write = LSTM(width, hidden, rngs=rngs)
        self.bridge = linear(hidden, 2 * hidden, rngs=rngs)
        self.ask = linear(hidden, hidden, rngs=rngs)
        self.join = linear(2 * hidden, width, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, deterministic=True, rngs=rngs)

    @property
    def context(self) -> int:
        """The most symbols of a target, and of a source."""
        return self.positions

    def __call__(self, sources, targets, *, source_lengths=None) -> jax.Array:
        """Logits of the symbol after each of the target's; as `Seq2Seq.__call__`."""
        memory, state = self.encode(sources, lengths=source_lengths)
        x, _ = self.write(self._embed("targets", targets), initial=state)
        return self._answer(x, memory, source_lengths)

    def encode(self, sources, *, lengths=None):
        """Sources [B, S] -> outputs of both directions [B, S, H], and the decoder's first state."""
        x = self._embed("sources", sources)
        forth, (last, _) = self.forth(x, lengths=lengths)
        back, (first, _) = self.back(x, lengths=lengths, reverse=True)
        h, c = jnp.split(self.bridge(jnp.concatenate([last, first], axis=-1)), 2, axis=-1)
        memory = jnp.concatenate([forth, back], axis=-1)
        return self.dropout(memory), (jnp.tanh(h), c)

    def alignments(self, sources, targets, *, source_lengths=None) -> jax.Array:
        """How much each target place attends to each source place: [1, B, 1, T, S]."""
        memory, state = self.encode(sources, lengths=source_lengths)
        x, _ = self.write(self._embed("targets", targets), initial=state)
        queries, keys = self._asked(x, memory)
        return attention_weights(queries, keys, source_lengths, scale=1.0)[None]

    def remember(self, batch: int, room: int, sources, lengths) -> "LSTMCache":
        """The cache before the first symbol of each target: the sources, read."""
        memory, (h, c) = self.encode(sources, lengths=lengths)
        return LSTMCache(memory, lengths, h, c)

    def extend(self, ids, cache: "LSTMCache", *, lengths=None):
        """Read more of the targets; as `Seq2Seq.extend`."""
        ids = checked_places("ids", ids, self.embedding.shape[0], self.context)
        x = look_up(self.embedding, ids)
        x, (h, c) = self.write(x, initial=(cache.h, cache.c), lengths=lengths)
        last = h[:, None]
        answer = self._answer(last, cache.memory, cache.source_lengths)[:, 0]
        return answer, cache._replace(h=h, c=c)

    def _embed(self, name, ids):
        ids = checked_places(name, ids, self.embedding.shape[0], self.positions)
        return self.dropout(look_up(self.embedding, ids))

    def _asked(self, x, memory):
        """Queries [B, T, 1, H] and keys [B, S, 1, H]."""
        return self.ask(x)[:, :, None], memory[:, :, None]

    def _answer(self, x, memory, lengths):
        queries, keys = self._asked(x, memory)
        found = attention(queries, keys, keys, lengths=lengths, scale=1.0)[:, :, 0]
        joined = jnp.tanh(self.join(jnp.concatenate([x, found], axis=-1)))
        return self.dropout(joined) @ self.embedding[...].T


class LSTMCache(NamedTuple):
    """What an `AttentionalLSTM` writes on: memory [B, S, H], source_lengths [B], h and c [B, H]."""

    memory: jax.Array
    source_lengths: jax.Array
    h: jax.Array
    c: jax.Array
