"""A linear-chain conditional random field: label a sequence as a whole, not place by place.

A path of labels y_1..y_L scores

    start[y_1] + sum_t emissions[t, y_t] + sum_t transitions[y_(t-1), y_t] + end[y_L]

and its probability is exp(score) over the sum of that for all K^L paths. The sum is taken by the
forward algorithm, the best path found by Viterbi's; both walk along the sequence with K^2 work a
step. They use `lax.scan`: steps combine associatively, so that `associative_scan` could read in
parallel, but it multiplies K x K matrices, K^3 work a step, which pays only for long sequences of
few labels.

Source: Lafferty, McCallum and Pereira 2001; Viterbi 1967.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class ChainScores(NamedTuple):
    """What scores the paths through a batch of sequences: B sequences, T steps, K labels.

    emissions [B, T, K], transitions [K, K] (from, to), start and end [K], all float32; lengths [B]:
    how many steps of each sequence are real. What lies beyond is not read.
    """

    emissions: jax.Array
    transitions: jax.Array
    start: jax.Array
    end: jax.Array
    lengths: jax.Array


def path_score(scores: ChainScores, labels) -> jax.Array:
    """The score of one path for each sequence: labels, integers [B, T or more] -> [B].

    Labels beyond a length are not read; an empty path scores 0. Raises ValueError for labels that
    are not integers of such a shape, and for real ones outside of [0, K); inside `jax.jit` values
    are unknown, and a label outside gives NaN.
    """
    emissions, lengths = scores.emissions, scores.lengths
    batch, steps, count = emissions.shape
    labels = jnp.asarray(labels)
    if labels.ndim != 2 or len(labels) != batch or labels.shape[1] < steps:
        raise ValueError(f"labels: expected shape [{batch}, {steps}], received {labels.shape}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels: expected integers, received {labels.dtype}")
    labels = labels[:, :steps].astype(jnp.int32)
    real = jnp.arange(steps, dtype=jnp.int32) < lengths[:, None]
    known = jnp.all(~real | ((labels >= 0) & (labels < count)), axis=1)
    labels = jnp.where(real & (labels >= 0) & (labels < count), labels, 0)
    if not isinstance(known, jax.core.Tracer) and not bool(known.all()):
        row = int(jnp.argmin(known))
        raise ValueError(
            f"labels: expected real ones in [0, {count}), received others in sequence {row}"
        )
    here = jnp.take_along_axis(emissions, labels[..., None], axis=2)[..., 0]
    moves = scores.transitions[labels[:, :-1], labels[:, 1:]]
    last = jnp.take_along_axis(labels, jnp.maximum(lengths - 1, 0)[:, None], axis=1)[:, 0]
    total = jnp.sum(here, axis=1, where=real) + jnp.sum(moves, axis=1, where=real[:, 1:])
    total += scores.start[labels[:, 0]] + scores.end[last]
    return jnp.where(known, jnp.where(lengths > 0, total, 0.0), jnp.nan)


def log_partition(scores: ChainScores) -> jax.Array:
    """Logarithm of the sum of exp(score) over all paths of each sequence: [B].

    The forward algorithm. An empty sequence has one path, the empty one: 0.
    """

    def step(alpha, inputs):
        emission, real = inputs
        arriving = jax.nn.logsumexp(alpha[:, :, None] + scores.transitions, axis=1) + emission
        return jnp.where(real[:, None], arriving, alpha), None

    alpha, _ = jax.lax.scan(step, *_walk(scores))
    total = jax.nn.logsumexp(alpha + scores.end, axis=1)
    return jnp.where(scores.lengths > 0, total, 0.0)


def negative_log_likelihood(scores: ChainScores, labels) -> jax.Array:
    """-log p(labels) for each sequence: [B]; a loss for `trivium.train.fit`.

    labels and errors: as in `path_score`.
    """
    return log_partition(scores) - path_score(scores, labels)


def viterbi(scores: ChainScores) -> tuple[jax.Array, jax.Array]:
    """The best path of each sequence, int32 [B, T], and its score [B].

    Beyond a length there is -1. Of equal paths the one with the lower label, from the end on, is
    taken.
    """

    def forward(best, inputs):
        emission, real = inputs
        through = best[:, :, None] + scores.transitions
        arriving = through.max(axis=1) + emission
        # A step that is not real leads every label to itself.
        stay = jnp.broadcast_to(jnp.arange(best.shape[1], dtype=jnp.int32), best.shape)
        before = jnp.where(real[:, None], jnp.argmax(through, axis=1).astype(jnp.int32), stay)
        return jnp.where(real[:, None], arriving, best), before

    best, before = jax.lax.scan(forward, *_walk(scores))
    best = best + scores.end

    def backward(label, before):
        label = jnp.take_along_axis(before, label[:, None], axis=1)[:, 0]
        return label, label

    last = jnp.argmax(best, axis=1).astype(jnp.int32)
    _, earlier = jax.lax.scan(backward, last, before, reverse=True)
    labels = jnp.concatenate([earlier, last[None]]).T
    real = jnp.arange(labels.shape[1], dtype=jnp.int32) < scores.lengths[:, None]
    return jnp.where(real, labels, -1), jnp.where(scores.lengths > 0, best.max(axis=1), 0.0)


def marginals(scores: ChainScores) -> jax.Array:
    """The probability of each label at each step, all paths considered: [B, T, K].

    The gradient of the log partition by the emissions, which is what the backward algorithm
    computes. Beyond a length all are 0.
    """

    def total(emissions):
        return log_partition(scores._replace(emissions=emissions)).sum()

    return jax.grad(total)(scores.emissions)


def _walk(scores: ChainScores):
    """The state after the first step, and what the later steps read, time first."""
    steps = scores.emissions.shape[1]
    real = jnp.arange(steps, dtype=jnp.int32)[:, None] < scores.lengths
    emissions = jnp.where(real.T[:, :, None], scores.emissions, 0.0)
    later = (jnp.swapaxes(emissions, 0, 1)[1:], real[1:])
    return scores.start + emissions[:, 0], later
