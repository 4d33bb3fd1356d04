"""layer_norm and rms_norm: by hand, PyTorch, precision, and wrong input."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import agree, narrow_agrees, normal, outcome, uneven, wide
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from trivium.kernels import layer_norm, rms_norm

X, SCALE, OFFSET = normal(0, 2, 3, 5), normal(1, 5), normal(2, 5)


def test_layer_norm_by_hand():
    # Mean 3, variance 4: the values lie one standard deviation to either side.
    y = layer_norm(np.float32([1, 5]), np.float32([1, 10]), np.float32([0, 0.5]), epsilon=1e-12)
    np.testing.assert_allclose(y, [-1, 10.5], rtol=1e-6)
    # epsilon is added to the variance: 4 + 5 = 9.
    y = layer_norm(np.float32([1, 5]), np.ones(2, "f4"), np.zeros(2, "f4"), epsilon=5.0)
    np.testing.assert_allclose(y, [-2 / 3, 2 / 3], rtol=1e-6)


def test_rms_norm_by_hand():
    # The mean square of 1 and 7 is 25.
    y = rms_norm(np.float32([1, 7]), np.float32([1, 10]), epsilon=1e-12)
    np.testing.assert_allclose(y, [0.2, 14], rtol=1e-6)
    y = rms_norm(np.float32([1, 7]), np.ones(2, "f4"), epsilon=11.0)
    np.testing.assert_allclose(y, [1 / 6, 7 / 6], rtol=1e-6)


def test_a_large_mean_does_not_cancel():
    x = np.float32(4096) + np.float32([-1, 0, 1, 0])
    y = layer_norm(x, np.ones(4, "f4"), np.zeros(4, "f4"), epsilon=1e-12)
    np.testing.assert_allclose(y, np.sqrt([2, 0, 2, 0]) * [-1, 0, 1, 0], rtol=1e-6)


def test_equal_values_give_the_offset_and_finite_gradients():
    y, gradients = outcome(
        lambda x: layer_norm(x, SCALE, OFFSET, epsilon=1e-5), np.full((1, 5), 3, "f4")
    )
    np.testing.assert_array_equal(y[0], OFFSET)
    assert np.isfinite(gradients[0]).all()


def test_gradients_by_finite_differences():
    with jax.enable_x64(True):
        arrays = wide(X, SCALE, OFFSET)
        check_grads(lambda *a: layer_norm(*a, epsilon=1e-3), arrays, order=2)
        check_grads(lambda *a: rms_norm(*a, epsilon=1e-3), arrays[:2], order=2)


def test_bfloat16():
    narrow_agrees(lambda *a: layer_norm(*a, epsilon=1e-5), X, SCALE, OFFSET)
    narrow_agrees(lambda *a: rms_norm(*a, epsilon=1e-5), X, SCALE)


def test_float32_parameters_with_bfloat16_input():
    narrow = jnp.asarray(X, jnp.bfloat16)
    assert layer_norm(narrow, SCALE, OFFSET, epsilon=1e-5).dtype == jnp.bfloat16
    assert rms_norm(narrow, SCALE, epsilon=1e-5).dtype == jnp.bfloat16


@settings(max_examples=5, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 4), max_size=3), st.integers(1, 6))
def test_random_shapes(leading, features):
    x = normal(0, *leading, features)
    ones, zeros = np.ones(features, "f4"), np.zeros(features, "f4")
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    agree(layer_norm(x, ones, zeros, epsilon=0.1), (x - mean) / np.sqrt(variance + 0.1))
    square = (x**2).mean(-1, keepdims=True)
    agree(rms_norm(x, ones, epsilon=0.1), x / np.sqrt(square + 0.1))


def test_pytorch():
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: pip install torch==2.13.0"
    )
    for ours, theirs, arrays in (
        (layer_norm, torch.nn.functional.layer_norm, (X, SCALE, OFFSET)),
        (rms_norm, torch.nn.functional.rms_norm, (X, SCALE)),
    ):
        tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
        y = theirs(tensors[0], (5,), *tensors[1:], eps=1e-5)
        weights = uneven(y.shape)
        y.backward(torch.tensor(weights))
        expected = y.detach().numpy(), tuple(tensor.grad.numpy() for tensor in tensors)
        agree(outcome(lambda *a, ours=ours: ours(*a, epsilon=1e-5), *arrays), expected)


def test_jit_vmap_and_grad_compose():
    def loss(x):
        return jnp.sum(layer_norm(x, SCALE, OFFSET, epsilon=1e-5) ** 2) + jnp.sum(
            rms_norm(x, SCALE, epsilon=1e-5) ** 2
        )

    together = jax.jit(jax.vmap(jax.grad(loss)))(X)
    agree(together, jnp.stack([jax.grad(loss)(x) for x in X]))


@pytest.mark.parametrize(
    ("arrays", "epsilon", "message"),
    [
        ((np.float32(1), SCALE, OFFSET), 1e-5, r"x: expected shape \[..., C\], received \(\)"),
        ((X.astype(int), SCALE, OFFSET), 1e-5, "x: expected a floating-point array"),
        ((X[..., :0], SCALE[:0], OFFSET[:0]), 1e-5, "x: expected .* C at least 1"),
        ((X, SCALE[:4], OFFSET), 1e-5, r"scale: expected shape \[C\] with C = 5, received \(4,\)"),
        ((X, SCALE.astype(int), OFFSET), 1e-5, "scale: expected a floating-point array"),
        ((X, SCALE, OFFSET), 0, "epsilon: expected a finite number above 0, received 0"),
        ((X, SCALE, OFFSET), math.nan, "epsilon: .* received nan"),
        ((X, SCALE, OFFSET), "small", "epsilon: .* received 'small'"),
    ],
)
def test_wrong_input(arrays, epsilon, message):
    with pytest.raises(ValueError, match=message):
        layer_norm(*arrays, epsilon=epsilon)
    with pytest.raises(ValueError, match=message):
        rms_norm(*arrays[:2], epsilon=epsilon)


def test_wrong_offset():
    with pytest.raises(ValueError, match=r"offset: expected shape \[C\] with C = 5"):
        layer_norm(X, SCALE, OFFSET[:1], epsilon=1e-5)
