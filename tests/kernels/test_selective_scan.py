"""selective_scan: by hand, the parallel form against the loop, and wrong input."""

import jax
import numpy as np
import pytest
from agreement import agree, narrow_agrees, normal, outcome, wide
from jax.test_util import check_grads

from trivium.kernels import implementations, selective_scan

EVERY = ("reference", "associative")


def arguments(batch=2, steps=9, features=3, state=2):
    x, step = normal(0, batch, steps, features), np.abs(normal(1, batch, steps, features))
    a = -np.abs(normal(2, features, state))
    return x, step, a, normal(3, batch, steps, state), normal(4, batch, steps, state)


def by_hand(x, step, a, b, c):
    h, answers = np.zeros((x.shape[0], *a.shape)), []
    for t in range(x.shape[1]):
        h = np.exp(step[:, t, :, None] * a) * h + (step * x)[:, t, :, None] * b[:, t, None]
        answers.append((h * c[:, t, None]).sum(-1))
    return np.stack(answers, 1)


def test_every_implementation_is_tried_here():
    assert set(implementations("selective_scan")) == set(EVERY)


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("steps", [1, 9, 33])
def test_is_its_equation(implementation, steps):
    arrays = arguments(steps=steps)
    found = selective_scan(*arrays, implementation=implementation)
    np.testing.assert_allclose(found, by_hand(*arrays), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", EVERY)
def test_a_step_of_zero_keeps_the_state(implementation):
    x, step, a, b, c = arguments()
    step[:, 4:] = 0
    c[:] = c[:, :1]
    found = np.asarray(selective_scan(x, step, a, b, c, implementation=implementation))
    np.testing.assert_allclose(found[:, 4:], np.repeat(found[:, 3:4], 5, 1), rtol=1e-5)


def test_gradients_agree():
    expected, parallel = (
        outcome(lambda *a, name=name: selective_scan(*a, implementation=name), *arguments())
        for name in EVERY
    )
    agree(parallel, expected)


@pytest.mark.parametrize("implementation", EVERY)
def test_gradients_by_finite_differences(implementation):
    with jax.enable_x64(True):
        check_grads(
            lambda *a: selective_scan(*a, implementation=implementation),
            wide(*arguments(1, 4, 2, 2)),
            order=2,
            modes=["rev"] if implementation == "associative" else ["fwd", "rev"],
        )


@pytest.mark.parametrize("implementation", EVERY)
def test_bfloat16(implementation):
    narrow_agrees(lambda *a: selective_scan(*a, implementation=implementation), *arguments())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: normal(0, 2, 9)}, r"x: expected shape \[B, T, D\]"),
        ({1: normal(0, 2, 9, 4)}, "step: expected shape .*D = 3"),
        ({2: normal(0, 4, 2)}, "a: expected shape .*D = 3"),
        ({3: normal(0, 2, 9, 5)}, "b: expected shape .*S = 2"),
        ({4: normal(0, 2, 8, 2)}, "c: expected shape .*T = 9"),
    ],
)
def test_wrong_arrays(change, message):
    arrays = [change.get(n, each) for n, each in enumerate(arguments())]
    with pytest.raises(ValueError, match=message):
        selective_scan(*arrays)
