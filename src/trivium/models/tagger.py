"""Label every token of a sequence: words and their letters in, the best path of labels out."""

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trivium.kernels import conv2d
from trivium.models.crf import ChainScores, viterbi
from trivium.models.language import check_sizes
from trivium.models.recurrence import LSTM
from trivium.models.seq2seq import EncoderBlock

LETTERS = 16  # of a token that are looked at
_CHARACTERS = string.ascii_letters + string.digits + string.punctuation


@dataclass(frozen=True)
class TokenEncoder:
    """Tokens as numbers: one for the word, 16 for its letters.

    words: known words, in the form that `plain` gives them.

    Word 0 is padding, 1 any unknown word, 2 and up the known ones. Letter 0 is padding, 1 any
    character that is not printable ASCII, 2 and up those that are. Of a token of more than 16
    letters the first 8 and the last 8 are looked at.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, sequences: Iterable[Sequence[str]], *, least: int = 2) -> "TokenEncoder":
        """An encoder that knows the words which these sequences of tokens hold `least` times."""
        seen = Counter(plain(token) for tokens in sequences for token in tokens)
        return cls(tuple(sorted(word for word, count in seen.items() if count >= least)))

    @property
    def size(self) -> int:
        """How many different words there are, with padding and the unknown one."""
        return len(self.words) + 2

    def __call__(self, tokens: Sequence[str]) -> np.ndarray:
        """Tokens as int32 [T, 17]: the word's number, then its letters'.

        No tokens give [0, 17]. Raises ValueError for a string in place of a list, which would pass
        for a list of letters, and for an empty token.
        """
        if isinstance(tokens, str):
            raise ValueError(f"tokens: expected a list of strings, received {tokens[:40]!r}")
        found = np.zeros((len(tokens), 1 + LETTERS), np.int32)
        numbers = self._numbers
        for row, token in enumerate(tokens):
            if not token:
                raise ValueError(f"tokens: expected no empty string, received one at {row}")
            found[row, 0] = numbers.get(plain(token), 1)
            half = LETTERS // 2
            letters = token if len(token) <= LETTERS else token[:half] + token[-half:]
            found[row, 1 : 1 + len(letters)] = [_CHARACTERS.find(each) + 2 for each in letters]
        return found

    @property
    def _numbers(self) -> dict[str, int]:
        return {word: i + 2 for i, word in enumerate(self.words)}


def plain(token: str) -> str:
    """A token without case and outer punctuation, and with every digit a 0: "St.," is "st"."""
    inner = token.strip(string.punctuation) or token
    return "".join("0" if each.isdigit() else each for each in inner.lower())


class Tagger(nnx.Module):
    """Score the labels of every token and of every pair of neighbors.

    words: how many different words (`TokenEncoder.size`). labels: how many labels (K).
    body: "lstm", one LSTM in each direction; "transformer", two pre-norm blocks of attention, with
    rotary positions. width: of the words' vectors; letters: of what a convolution reads from the
    letters. hidden: numbers a token after the body. dropout: while training (`model.train()`; off
    at first), of words as a whole too, so that the letters learn to do without them.

    Raises ValueError for a size that is not positive, hidden that 8 does not divide, or another
    body.
    Source: Lample et al. 2016 (LSTM and conditional random field); Ma and Hovy 2016 (convolution
    over letters).
    """

    def __init__(
        self,
        words: int,
        labels: int,
        *,
        body: str = "lstm",
        width: int = 64,
        letters: int = 64,
        hidden: int = 128,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        check_sizes(words=words, labels=labels, width=width, letters=letters, hidden=hidden)
        if hidden % 8:
            raise ValueError(f"hidden must be a multiple of 8, not {hidden}")
        if body not in ("lstm", "transformer"):
            raise ValueError(f'body must be "lstm" or "transformer", not {body!r}')
        normal, glorot = nnx.initializers.normal, nnx.initializers.glorot_uniform()
        size = 32
        self.words = nnx.Param(normal(0.1)(rngs.params(), (words, width)))
        self.letters = nnx.Param(normal(0.3)(rngs.params(), (len(_CHARACTERS) + 2, size)))
        self.filters = nnx.Param(glorot(rngs.params(), (3, 1, size, letters)))
        self.filter_bias = nnx.Param(jnp.zeros(letters))
        self.body = body
        if body == "lstm":
            self.forth = LSTM(width + letters, hidden // 2, rngs=rngs)
            self.back = LSTM(width + letters, hidden // 2, rngs=rngs)
        else:
            self.enter = nnx.Linear(width + letters, hidden, rngs=rngs)
            self.blocks = nnx.List(
                [
                    EncoderBlock(hidden, 4, 2 * hidden, dropout, turned=True, rngs=rngs)
                    for _ in range(2)
                ]
            )
        self.answer = nnx.Linear(hidden, labels, kernel_init=glorot, rngs=rngs)
        self.transitions = nnx.Param(jnp.zeros((labels, labels)))
        self.start = nnx.Param(jnp.zeros(labels))
        self.end = nnx.Param(jnp.zeros(labels))
        self.dropout = nnx.Dropout(dropout, deterministic=True, rngs=rngs)
        self.forget = nnx.Dropout(dropout, deterministic=True, broadcast_dims=(2,), rngs=rngs)

    def __call__(self, tokens, *, lengths=None) -> ChainScores:
        """Score tokens [B, T, 17], numbers from a `TokenEncoder`; T at least 1.

        lengths [B]: real tokens of each sequence, from 0; None is all. What is behind changes
        nothing. Raises ValueError for tokens that are not integers of that shape or, known outside
        of `jax.jit`, not of the vocabulary.
        """
        tokens = self._checked(tokens)
        batch, steps, _ = tokens.shape
        if lengths is None:
            lengths = jnp.full(batch, steps, jnp.int32)
        lengths = jnp.asarray(lengths, jnp.int32)
        words = self.forget(jnp.take(self.words[...], tokens[:, :, 0], axis=0))
        x = self.dropout(jnp.concatenate([words, self._spell(tokens[:, :, 1:])], axis=-1))
        if self.body == "lstm":
            forth, _ = self.forth(x, lengths=lengths)
            back, _ = self.back(x, lengths=lengths, reverse=True)
            x = jnp.concatenate([forth, back], axis=-1)
        else:
            x = self.enter(x)
            for block in self.blocks:
                x = block(x, lengths)
        emissions = self.answer(self.dropout(x))
        return ChainScores(
            emissions, self.transitions[...], self.start[...], self.end[...], lengths
        )

    def tag(self, tokens, *, lengths=None) -> jax.Array:
        """The best path of labels, int32 [B, T], -1 beyond a length."""
        return viterbi(self(tokens, lengths=lengths))[0]

    def _spell(self, letters):
        """One vector a token from its letters [B, T, 16]: the strongest answer of each filter."""
        batch, steps, count = letters.shape
        known = jnp.take(self.letters[...], letters, axis=0)
        known = jnp.where(letters[..., None] > 0, known, 0.0).reshape(batch * steps, count, 1, -1)
        found = conv2d(known, self.filters[...], self.filter_bias[...])
        return jax.nn.relu(found).max(axis=(1, 2)).reshape(batch, steps, -1)

    def _checked(self, tokens):
        if not isinstance(tokens, jax.Array):
            tokens = np.asarray(tokens)
        fits = tokens.ndim == 3 and tokens.shape[1] > 0 and tokens.shape[2] == 1 + LETTERS
        if not fits or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(
                f"tokens: expected integers [B, T, {1 + LETTERS}] with T at least 1, received "
                f"{tokens.dtype} {list(tokens.shape)}"
            )
        if not isinstance(tokens, jax.core.Tracer) and tokens.size:
            known = np.asarray(tokens)
            limits = (self.words.shape[0], self.letters.shape[0])
            for part, limit in zip((known[..., 0], known[..., 1:]), limits, strict=True):
                if part.min() < 0 or part.max() >= limit:
                    raise ValueError(
                        f"tokens: expected numbers in [0, {limit}), received {part.min()} to "
                        f"{part.max()}"
                    )
        return jnp.asarray(tokens)
