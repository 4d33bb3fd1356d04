"""The conditional random field against every path there is, and against finite differences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trivium.models import (
    ChainScores,
    crf,
)

log_partition, marginals, negative_log_likelihood, path_score, viterbi = (
    jax.jit(getattr(crf, name))
    for name in ("log_partition", "marginals", "negative_log_likelihood", "path_score", "viterbi")
)

BATCH, STEPS, COUNT = 5, 4, 3
LENGTHS = np.array([4, 3, 2, 1, 0], np.int32)


def chain(seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(BATCH, STEPS, COUNT), (COUNT, COUNT), (COUNT,), (COUNT,)]
    arrays = [jnp.asarray(2 * rng.normal(size=shape), jnp.float32) for shape in shapes]
    return ChainScores(*arrays, jnp.asarray(LENGTHS))


def every_path(scores, row):
    """Each path through one sequence with its score, by the formula."""
    emissions, moves, start, end, _ = (np.asarray(part, np.float64) for part in scores)
    for path in itertools.product(range(COUNT), repeat=int(LENGTHS[row])):
        total = sum(emissions[row, t, label] for t, label in enumerate(path))
        total += sum(moves[a, b] for a, b in itertools.pairwise(path))
        yield path, total + (start[path[0]] + end[path[-1]] if path else 0.0)


@pytest.mark.parametrize("seed", [0, 1])
def test_sum_best_path_and_marginals_are_those_of_all_paths(seed):
    scores = chain(seed)
    total = log_partition(scores)
    best, value = viterbi(scores)
    shares = marginals(scores)
    for row, length in enumerate(LENGTHS):
        paths = list(every_path(scores, row))
        weights = np.exp([score for _, score in paths])
        np.testing.assert_allclose(total[row], np.log(weights.sum()), rtol=1e-5, atol=1e-5)
        path, score = max(paths, key=lambda each: each[1])
        assert np.asarray(best[row]).tolist() == [*path] + [-1] * (STEPS - length)
        np.testing.assert_allclose(value[row], score, rtol=1e-5)
        expected = np.zeros((STEPS, COUNT))
        for (path, _), weight in zip(paths, weights / weights.sum(), strict=True):
            expected[np.arange(length), list(path)] += weight
        np.testing.assert_allclose(shares[row], expected, atol=1e-5)
        for path, score in paths[:: max(1, len(paths) // 5)]:
            labels = np.zeros((BATCH, STEPS), np.int32)
            labels[row, :length] = path
            np.testing.assert_allclose(path_score(scores, labels)[row], score, rtol=1e-5, atol=1e-5)


def test_probabilities_of_all_paths_sum_to_one():
    scores = chain()
    for row, length in enumerate(LENGTHS):
        paths = [path for path, _ in every_path(scores, row)]
        labels = np.zeros((COUNT**STEPS, STEPS), np.int32)
        labels[: len(paths), :length] = paths
        copies = scores._replace(
            emissions=jnp.asarray(np.repeat(np.asarray(scores.emissions)[[row]], len(labels), 0)),
            lengths=np.full(len(labels), length),
        )
        losses = negative_log_likelihood(copies, labels)[: len(paths)]
        np.testing.assert_allclose(np.exp(-np.asarray(losses)).sum(), 1.0, rtol=1e-5)


def test_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        scores = ChainScores(*(
            jnp.asarray(np.asarray(part, np.float64)) for part in chain()[:4]
        ), jnp.asarray(LENGTHS))  # fmt: skip
        labels = np.random.default_rng(3).integers(0, COUNT, (BATCH, STEPS))

        @jax.jit
        def loss(parts):
            return crf.negative_log_likelihood(ChainScores(*parts, scores.lengths), labels).sum()

        parts = tuple(scores[:4])
        slopes = jax.jit(jax.grad(loss))(parts)
        for i, part in enumerate(parts):
            for place in itertools.islice(np.ndindex(part.shape), 0, None, 5):
                nudge = [jnp.zeros_like(each) for each in parts]
                nudge[i] = nudge[i].at[place].set(1e-5)
                up, down = (
                    loss(tuple(p + sign * n for p, n in zip(parts, nudge, strict=True)))
                    for sign in (1, -1)
                )
                np.testing.assert_allclose(slopes[i][place], (up - down) / 2e-5, atol=1e-6)


def test_what_lies_beyond_a_length_changes_nothing_not_even_nan():
    scores = chain()
    real = np.arange(STEPS) < LENGTHS[:, None]
    spoilt = scores._replace(emissions=jnp.where(real[..., None], scores.emissions, jnp.nan))
    labels = np.where(real, 1, 99)
    for function in (log_partition, marginals, lambda scores: path_score(scores, labels)):
        np.testing.assert_array_equal(function(scores), function(spoilt))
    for a, b in zip(viterbi(scores), viterbi(spoilt), strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_that_cannot_be():
    scores = chain()
    with pytest.raises(ValueError, match=r"labels: expected shape \[5, 4\], received \(5, 3\)"):
        path_score(scores, np.zeros((5, 3), np.int32))
    with pytest.raises(ValueError, match="labels: expected integers, received float32"):
        path_score(scores, np.zeros((5, 4), np.float32))
    labels = np.zeros((5, 4), np.int32)
    labels[0, 2], labels[1, 0] = COUNT, -1
    # Inside of `jax.jit` nothing is known of them.
    assert np.isnan(negative_log_likelihood(scores, labels)).tolist() == [True] * 2 + [False] * 3
    with pytest.raises(ValueError, match=r"in \[0, 3\), received others in sequence 0"):
        crf.negative_log_likelihood(scores, labels)
