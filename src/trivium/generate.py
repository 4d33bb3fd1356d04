"""Writing with a model that guesses the next token: greedily, by lot, or with several beams.

Nothing here knows Llama. A model is anything with

    context                             the most tokens it can read and write together
    start(batch, room) -> cache         an empty cache; every array in it has the batch axis first
    extend(ids, cache, lengths=...)     reads ids [B, T], of which `lengths` [B] are real; returns
        -> (logits, cache)              the logits [B, V] of what follows, and the longer cache

A model that translates needs nothing more: `models.Translation` holds the sources, its `start` puts
what an encoder made of them into the cache, and the prompt is the symbol that begins a target.

Prompts are padded and caches sized to powers of two, so that a few compiled programs serve all
lengths: one that reads a prompt and one that reads a single token, which every step reuses.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class Sampling(NamedTuple):
    """How the next token is taken from the logits.

    temperature: logits are divided by it; 0 takes the likeliest token, whatever the rest says.
    top_k: only so many of the likeliest tokens; None is all.
    top_p: only the likeliest tokens whose probabilities, added up until then, are below it, so
        that the last one kept reaches it; None or 1 is all. Applied after top_k.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Collection[int] = (),
    seed: int = 0,
) -> list[list[int]]:
    """Continue several prompts at once.

    prompts: token ids, each of any length from 1; all are read in one batch.
    max_new: how many tokens to write for each, at most.
    temperature, top_k, top_p: see `Sampling`; by default the likeliest token is taken.
    stop: token ids that end a text; they are not part of the result.
    seed: of the random numbers, if there are any.

    Returns the new tokens of each prompt. The texts of a batch do not depend on one another,
    except that each row draws its own random numbers.
    Raises ValueError for prompts that are empty, not integers, or with `max_new` beyond the
    model's context, and for options that cannot be.
    """
    prompts = [_checked_prompt(prompt) for prompt in prompts]
    written: list[list[int]] = [[] for _ in prompts]
    running = [True for _ in prompts]
    stops = set(stop)
    sampling = Sampling(temperature, top_k, top_p)
    for tokens in _write(model, prompts, max_new, sampling, seed):
        for row, token in enumerate(tokens):
            running[row] = running[row] and token not in stops
            if running[row]:
                written[row].append(token)
        if not any(running):
            break
    return written


def stream(
    model: Any,
    prompt: Sequence[int],
    *,
    max_new: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Collection[int] = (),
    seed: int = 0,
) -> Iterator[int]:
    """Yield the tokens that continue one prompt, each as soon as it is known.

    Options, result and errors are those of `generate`; errors are raised at once, not when the
    first token is asked for.
    """
    sampling, stops = Sampling(temperature, top_k, top_p), set(stop)
    steps = _write(model, [_checked_prompt(prompt)], max_new, sampling, seed)

    def tokens():
        for (token,) in steps:
            if token in stops:
                return
            yield token

    return tokens()


def beam_search(
    model: Any,
    prompt: Sequence[int],
    *,
    beams: int = 4,
    max_new: int = 64,
    stop: Collection[int] = (),
    length_power: float = 1.0,
) -> tuple[list[int], float]:
    """Continue one prompt by the likeliest text found with several beams.

    beams: how many unfinished texts are kept at each step, those of the highest probability.
    length_power: finished texts are compared by log probability / length ** length_power, where
        the length counts the new tokens, the one that stopped it included; 0 compares the
        probabilities themselves, which favors short texts.
    stop, max_new: as in `generate`. A text cut off at `max_new` counts as finished.

    Returns the new tokens, without the one that stopped them, and that quotient.
    Raises ValueError as `generate` does. Source: Graves 2012; Wu et al. 2016 (lengths).
    """
    options: dict[str, Any] = {"beams": beams, "max_new": max_new, "stop": stop}
    return beam_searches(model, [prompt], length_power=length_power, **options)[0]


def beam_searches(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int = 4,
    max_new: int = 64,
    stop: Collection[int] = (),
    length_power: float = 1.0,
) -> list[tuple[list[int], float]]:
    """Continue several prompts at once, each as `beam_search` would alone.

    Options and errors are those of `beam_search`; returns what it returns, for each prompt.
    """
    prompts = [_checked_prompt(prompt) for prompt in prompts]
    _at_least("beams", beams, 1)
    if not prompts:
        return []
    searches = [_Search(beams, max_new, frozenset(stop), length_power) for _ in prompts]
    steps = _Steps(model, prompts, max_new)
    logits = steps.read(prompts)
    vocabulary = logits.shape[-1]
    # So many of one beam's tokens can be among the likeliest of all beams' that `grow` looks at.
    count = min(vocabulary, beams * (len(set(stop)) + 1))
    logits = jnp.repeat(logits, beams, axis=0)
    steps.cache = jax.tree.map(lambda array: jnp.repeat(array, beams, axis=0), steps.cache)
    for number in range(max_new):
        scores, tokens = (
            np.asarray(each).reshape(len(prompts), beams, count) for each in _best(logits, count)
        )
        chosen = [
            search.grow(scores[row].astype(np.float64), tokens[row])
            for row, search in enumerate(searches)
        ]
        if number + 1 == max_new or all(search.done for search in searches):
            break
        parents = [
            row * beams + parent for row, (those, _) in enumerate(chosen) for parent in those
        ]
        steps.cache = _reorder(steps.cache, jnp.asarray(parents))
        logits = steps.step(np.concatenate([those for _, those in chosen]))
    return [search.best for search in searches]


class _Search:
    """The beams of one prompt: unfinished texts with their log probabilities, and finished ones."""

    def __init__(self, beams, max_new, stops, length_power):
        self.beams, self.max_new, self.stops = beams, max_new, stops
        self.power = length_power
        self.texts: list[list[int]] = [[]]
        self.totals = np.zeros(1)
        self.best: tuple[list[int], float] = ([], -np.inf)
        self.done = False

    def grow(self, scores, tokens):
        """Take the likeliest next tokens: scores and tokens [beams, count], falling in each row.

        Returns, for each beam, which one it goes on from, and with which token.
        """
        still = list(range(self.beams)), [0] * self.beams
        if self.done:
            return still
        live = len(self.texts)
        sums = (self.totals[:, None] + scores[:live]).ravel()
        following = tokens[:live].ravel()
        # Each beam may end in each of the stop tokens: only then are `beams` unfinished ones left.
        likeliest = np.argsort(-sums, kind="stable")[: self.beams * (len(self.stops) + 1)]
        going: list[tuple[int, int, float]] = []
        for place in likeliest:
            parent, token, total = place // tokens.shape[1], int(following[place]), sums[place]
            text = [*self.texts[parent], token]
            last = len(text) == self.max_new
            if token in self.stops or (last and len(going) < self.beams):
                score = float(total / len(text) ** self.power)
                if score > self.best[1]:
                    self.best = (text[:-1] if token in self.stops else text, score)
            if token not in self.stops and len(going) < self.beams:
                going.append((int(parent), token, float(total)))
        # Probabilities only fall, and no text gets longer than max_new: what cannot win any more.
        longest = self.max_new**self.power
        self.done = all(total / longest <= self.best[1] for *_, total in going)
        self.texts = [[*self.texts[parent], token] for parent, token, _ in going]
        self.totals = np.array([total for *_, total in going])
        parents, chosen = still
        for i, (parent, token, _) in enumerate(going):
            parents[i], chosen[i] = parent, token
        return parents, chosen


@partial(jax.jit, static_argnums=1)
def _best(logits, count):
    """The log probabilities of the likeliest tokens, falling, and the tokens: each [B, count]."""
    return jax.lax.top_k(jax.nn.log_softmax(logits), count)


def distribution(
    logits: Any,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> jax.Array:
    """The probabilities [..., V] that `generate` draws the next token from, given logits [..., V].

    Of tokens with equal logits those with the lower ids go first.
    Raises ValueError for options that cannot be. Source: Holtzman et al. 2020 (top_p).
    """
    sampling = Sampling(temperature, top_k, top_p)
    _check(sampling)
    logits = jnp.asarray(logits, jnp.float32)
    return _distribution(logits, *_numbers(sampling, logits.shape[-1]), kind=_kind(sampling))


def _kind(sampling: Sampling) -> str:
    """Which program takes the token: the numbers in it are arguments and compile nothing anew."""
    if sampling.temperature == 0:
        return "greedy"
    whole = sampling.top_k is None and sampling.top_p in (None, 1)
    return "whole" if whole else "cut"


def _numbers(sampling, vocabulary):
    top_k = vocabulary if sampling.top_k is None else min(sampling.top_k, vocabulary)
    top_p = 1.0 if sampling.top_p is None else sampling.top_p
    return np.float32(sampling.temperature), np.int32(top_k), np.float32(top_p)


@partial(jax.jit, static_argnames="kind")
def _distribution(logits, temperature, top_k, top_p, *, kind):
    if kind == "greedy":
        return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
    probabilities = jax.nn.softmax(logits / temperature)
    if kind == "whole":
        return probabilities
    order = jnp.argsort(-probabilities, axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1, stable=True)
    falling = jnp.take_along_axis(probabilities, order, axis=-1)
    falling = jnp.where(jnp.arange(falling.shape[-1]) < top_k, falling, 0.0)
    falling /= falling.sum(axis=-1, keepdims=True)
    before = jnp.cumsum(falling, axis=-1) - falling
    falling = jnp.where((before < top_p) | (top_p >= 1), falling, 0.0)
    falling /= falling.sum(axis=-1, keepdims=True)
    return jnp.take_along_axis(falling, rank, axis=-1)


@partial(jax.jit, static_argnames="kind")
def _take(logits, keys, temperature, top_k, top_p, *, kind):
    """A token [B] from logits [B, V]; each row has a key of its own."""
    if kind == "greedy":
        return jnp.argmax(logits, axis=-1)
    probabilities = _distribution(logits, temperature, top_k, top_p, kind=kind)
    return jax.vmap(jax.random.categorical)(keys, jnp.log(probabilities))


def _write(model, prompts, max_new, sampling, seed) -> Iterator[list[int]]:
    """Check everything, then return the tokens [B] of each step, one step after the other."""
    _check(sampling)
    if not prompts:
        return iter(())
    steps = _Steps(model, prompts, max_new)

    def tokens():
        kind = _kind(sampling)
        key = jax.random.key(seed)
        logits = steps.read(prompts)
        numbers = _numbers(sampling, logits.shape[-1])
        taken = None
        for number in range(max_new):
            if taken is not None:
                logits = steps.step(taken)
            keys = None
            if kind != "greedy":
                keys = jax.random.split(jax.random.fold_in(key, number), len(prompts))
            taken = _take(logits, keys, *numbers, kind=kind)
            yield np.asarray(taken).tolist()

    return tokens()


class _Steps:
    """A model, split once, and the cache of what it has read."""

    def __init__(self, model, prompts, max_new):
        _at_least("max_new", max_new, 1)
        longest = max(map(len, prompts))
        if longest + max_new > model.context:
            raise ValueError(
                f"prompts: expected at most {model.context} tokens with those to write, the "
                f"model's context; received a prompt of {longest} and max_new={max_new}"
            )
        self.padded = min(_power(longest, 16), model.context)
        room = min(_power(longest + max_new, 64), model.context)
        self.graph, self.state = nnx.split(model)
        self.cache = model.start(len(prompts), room)

    def read(self, prompts):
        """The logits [B, V] after the prompts."""
        ids = np.zeros((len(prompts), self.padded), np.int32)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        logits, self.cache = _extend(self.graph, self.state, ids, self.cache, lengths)
        return logits

    def step(self, tokens):
        """The logits [B, V] after one token more of each, [B]."""
        tokens = jnp.asarray(tokens, jnp.int32)[:, None]
        logits, self.cache = _extend(self.graph, self.state, tokens, self.cache, None)
        return logits


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def _extend(graph, state, ids, cache, lengths):
    return nnx.merge(graph, state).extend(ids, cache, lengths=lengths)


@partial(jax.jit, donate_argnums=0)
def _reorder(cache, parents):
    return jax.tree.map(lambda array: array[parents], cache)


def _power(size, least):
    """The smallest power of two that is at least `size`, and at least `least`."""
    return max(least, 1 << (size - 1).bit_length())


def _check(sampling: Sampling) -> None:
    temperature, top_k, top_p = sampling
    if not (_is_real(temperature) and 0 <= temperature < float("inf")):
        raise ValueError(f"temperature: expected a number of at least 0, received {temperature!r}")
    if top_k is not None:
        _at_least("top_k", top_k, 1)
    if top_p is not None and not (_is_real(top_p) and 0 < top_p <= 1):
        raise ValueError(f"top_p: expected a number above 0 and up to 1, received {top_p!r}")


def _is_real(value) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _at_least(name, value, least) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, received {value!r}")


def _checked_prompt(prompt) -> list[int]:
    if isinstance(prompt, str):
        raise ValueError(
            f"prompt: expected token ids, received the text {prompt[:40]!r}: encode it"
        )
    ids = np.asarray(prompt)
    if ids.ndim != 1 or not ids.size or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            f"prompt: expected integers [T] with T at least 1, received {ids.dtype} "
            f"{list(ids.shape)}"
        )
    return [int(each) for each in ids]
