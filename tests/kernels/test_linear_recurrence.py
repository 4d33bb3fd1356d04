"""linear_recurrence: by hand, the parallel form against the loop, and wrong input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import agree, lowered, narrow_agrees, normal, outcome, wide
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from trivium.kernels import implementations, linear_recurrence

EVERY = ("reference", "associative")


def arguments(batch=2, steps=7, features=3):
    """Decays between 0 and 1, inputs, and an initial state."""
    a = np.random.default_rng(0).random((batch, steps, features), dtype=np.float32)
    return a, normal(1, batch, steps, features), normal(2, batch, features)


def test_every_implementation_is_tried_here():
    assert set(implementations("linear_recurrence")) == set(EVERY)


@pytest.mark.parametrize("implementation", EVERY)
def test_values_by_hand(implementation):
    a, x = np.float32([2, 3, 4]).reshape(1, 3, 1), np.float32([1, 1, 5]).reshape(1, 3, 1)

    def run(**options):
        return np.ravel(linear_recurrence(a, x, implementation=implementation, **options))

    np.testing.assert_array_equal(run(), [1, 4, 21])
    np.testing.assert_array_equal(run(initial=np.float32([[10]])), [21, 64, 261])
    np.testing.assert_array_equal(run(reverse=True), [33, 16, 5])
    np.testing.assert_array_equal(
        run(reverse=True, initial=np.float32([[1]])), [2 * 28 + 1, 3 * 9 + 1, 9]
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_agrees_with_the_reference(reverse):
    expected, parallel = (
        outcome(
            lambda a, x, initial, name=name: linear_recurrence(
                a, x, initial=initial, reverse=reverse, implementation=name
            ),
            *arguments(),
        )
        for name in EVERY
    )
    agree(parallel, expected)


@pytest.mark.parametrize("implementation", EVERY)
def test_gradients_by_finite_differences(implementation):
    modes = ["rev"] if implementation == "associative" else ["fwd", "rev"]
    with jax.enable_x64(True):
        check_grads(
            lambda a, x, initial: linear_recurrence(
                a, x, initial=initial, implementation=implementation
            ),
            wide(*arguments(1, 4, 2)),
            order=2,
            modes=modes,
        )


@pytest.mark.parametrize("implementation", EVERY)
def test_bfloat16(implementation):
    narrow_agrees(
        lambda a, x: linear_recurrence(a, x, implementation=implementation), *arguments()[:2]
    )


@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.integers(0, 3), st.integers(0, 9), st.integers(0, 3), st.booleans())
def test_random_shapes(batch, steps, features, reverse):
    a, x, initial = arguments(batch, steps, features)
    expected, parallel = (
        linear_recurrence(a, x, initial=initial, reverse=reverse, implementation=name)
        for name in EVERY
    )
    assert expected.shape == x.shape
    agree(parallel, expected)


@pytest.mark.parametrize("steps", [0, 1])
def test_gradients_of_the_shortest_sequences(steps):
    expected, parallel = (
        outcome(
            lambda a, x, h, name=name: linear_recurrence(a, x, initial=h, implementation=name),
            *arguments(steps=steps),
        )
        for name in EVERY
    )
    agree(parallel, expected)


@pytest.mark.parametrize("implementation", EVERY)
def test_jit_vmap_and_grad_compose(implementation):
    a, x, _ = arguments()
    a, x = np.stack([a, a / 2]), np.stack([x, 2 * x])

    def loss(a, x):
        return jnp.sum(linear_recurrence(a, x, implementation=implementation) ** 2)

    together = jax.jit(jax.vmap(jax.grad(loss)))(a, x)
    agree(together, jnp.stack([jax.jit(jax.grad(loss))(*one) for one in zip(a, x, strict=True)]))


@pytest.mark.parametrize("implementation", EVERY)
def test_nan_reaches_its_own_step_and_later_ones(implementation):
    a, x, _ = arguments()
    x[0, 3, 1] = np.nan
    y = np.asarray(linear_recurrence(a, x, implementation=implementation))
    expected = np.zeros(y.shape, bool)
    expected[0, 3:, 1] = True
    np.testing.assert_array_equal(np.isnan(y), expected)


def test_the_lowered_text_shows_which_implementation_ran():
    a, x, _ = arguments()

    def text(name):
        return lowered(lambda a, x: linear_recurrence(a, x, implementation=name), a, x)

    assert "stablehlo.while" in text("reference")
    assert "stablehlo.while" not in text("associative")


A, X, H = arguments()


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ((A[0], X), {}, r"a: expected shape \[B, T, D\]"),
        ((A, X[:, :3]), {}, r"x: expected shape \[B, T, D\] with B = 2, T = 7, D = 3"),
        ((A, X.astype(int)), {}, "x: expected a floating-point array"),
        ((A, jnp.asarray(X, jnp.bfloat16)), {}, "x: expected type float32"),
        ((A, X), {"initial": H[:, :2]}, r"initial: expected shape \[B, D\]"),
        ((A, X), {"reverse": None}, "reverse: expected True or False"),
        ((A, X), {"implementation": "scan"}, "implementation: .*'associative'.*'scan'"),
    ],
)
def test_wrong_input(arrays, options, message):
    with pytest.raises(ValueError, match=message):
        linear_recurrence(*arrays, **options)
