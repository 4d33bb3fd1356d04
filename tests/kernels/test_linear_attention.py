"""linear_attention: all pairs by definition, chunks against the loop, causality, wrong input."""

import jax
import numpy as np
import pytest
from agreement import agree, narrow_agrees, normal, outcome, wide
from jax.test_util import check_grads

from trivium.kernels import implementations, linear_attention
from trivium.kernels import linear_attention as kernel

EVERY = ("reference", "chunked")


def arguments(batch=2, steps=7, heads=2, size=3, values=4):
    """Queries and keys above zero, and values."""
    q, k = (np.abs(normal(n, batch, steps, heads, size)) + 0.1 for n in range(2))
    return q.astype(np.float32), k.astype(np.float32), normal(2, batch, steps, heads, values)


def by_pairs(q, k, v, normalize=True):
    weights = np.einsum("btnh,bsnh->bnts", q, k) * np.tri(q.shape[1])
    if normalize:
        weights = weights / weights.sum(-1, keepdims=True)
    return np.einsum("bnts,bsnv->btnv", weights, v)


def test_every_implementation_is_tried_here():
    assert set(implementations("linear_attention")) == set(EVERY)


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("steps", [1, 7, 64, 150])  # less than a chunk, a chunk, more than two
def test_is_attention_without_the_softmax(implementation, normalize, steps):
    arrays = arguments(steps=steps)
    found = kernel(*arrays, normalize=normalize, implementation=implementation)
    expected = by_pairs(*arrays, normalize)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("implementation", EVERY)
def test_does_not_look_ahead(implementation):
    arrays = arguments(steps=100)
    changed = [each.copy() for each in arrays]
    for each in changed:
        each[:, 70:] = 3.0
    before, after = (
        kernel(*each, implementation=implementation)[:, :70] for each in (arrays, changed)
    )
    np.testing.assert_allclose(before, after, rtol=1e-5)


def test_gradients_agree_over_chunks():
    expected, chunked = (
        outcome(lambda *a, name=name: kernel(*a, implementation=name), *arguments(steps=130))
        for name in EVERY
    )
    agree(chunked, expected)


@pytest.mark.parametrize("implementation", EVERY)
def test_gradients_by_finite_differences(implementation):
    with jax.enable_x64(True):
        check_grads(
            lambda *a: kernel(*a, implementation=implementation),
            wide(*arguments(1, 4, 1, 2, 2)),
            order=2,
            modes=["fwd", "rev"],
        )


@pytest.mark.parametrize("implementation", EVERY)
def test_bfloat16(implementation):
    narrow_agrees(lambda *a: kernel(*a, implementation=implementation), *arguments())


def test_a_divisor_of_zero_answers_zero():
    q, k, v = arguments()
    found = linear_attention(np.zeros_like(q), k, v)
    np.testing.assert_array_equal(found, np.zeros_like(v))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: normal(0, 2, 7, 2)}, r"q: expected shape \[B, T, N, H\]"),
        ({1: normal(0, 2, 7, 2, 5)}, r"k: expected shape .*H = 3"),
        ({2: normal(0, 2, 6, 2, 4)}, r"v: expected shape .*T = 7"),
        ({2: np.ones((2, 7, 2, 4), np.int32)}, "v: expected a floating-point array"),
    ],
)
def test_wrong_arrays(change, message):
    arrays = [change.get(n, each) for n, each in enumerate(arguments())]
    with pytest.raises(ValueError, match=message):
        linear_attention(*arrays)


def test_wrong_flag():
    with pytest.raises(ValueError, match="normalize: expected True or False"):
        linear_attention(*arguments(), normalize=1)
