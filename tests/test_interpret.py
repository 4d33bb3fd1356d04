"""Explanations where the right answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trivium import interpret

RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)
LABEL = jnp.asarray([0, 2, 1, 2])


def linear(x):
    return x @ W + 1.0


def curved(x):
    return jnp.tanh(x @ W) ** 2 + x[:, :1] * x[:, 1:2]


def test_of_a_linear_model_every_gradient_method_gives_the_weights():
    expected = W.T[LABEL]
    np.testing.assert_allclose(interpret.saliency(linear, X, LABEL), expected, rtol=1e-6)
    smooth = interpret.smooth_grad(linear, X, LABEL, key=jax.random.key(0), samples=3)
    np.testing.assert_allclose(smooth, expected, rtol=1e-5)
    for steps in (1, 5):
        shares = interpret.integrated_gradients(linear, X, LABEL, baseline=0.5, steps=steps)
        np.testing.assert_allclose(shares, (X - 0.5) * expected, rtol=1e-4, atol=1e-6)


def test_one_label_serves_all():
    np.testing.assert_array_equal(
        interpret.saliency(curved, X, 1), interpret.saliency(curved, X, jnp.ones(4, jnp.int32))
    )


def test_integrated_gradients_are_complete_and_the_midpoint_rule_is_of_second_order():
    def gap(steps):
        shares = interpret.integrated_gradients(curved, X, LABEL, baseline=0.1, steps=steps)
        rows = jnp.arange(4)
        difference = curved(X)[rows, LABEL] - curved(jnp.full_like(X, 0.1))[rows, LABEL]
        return float(jnp.abs(shares.sum(1) - difference).max())

    assert gap(256) < 1e-4
    assert gap(64) < gap(16) / 8


def test_grad_cam_finds_the_only_map_that_counts():
    features = jnp.asarray(RNG.random((2, 5, 4, 3)), jnp.float32)

    def head(features):
        return jnp.stack([features[..., 1].sum((1, 2)), -features[..., 2].sum((1, 2))], 1)

    np.testing.assert_allclose(interpret.grad_cam(head, features, 0), features[..., 1], rtol=1e-6)
    assert not interpret.grad_cam(head, features, 1).any()


def test_rollout_keeps_rows_and_multiplies_layers():
    maps = jax.nn.softmax(jnp.asarray(RNG.normal(size=(3, 2, 4, 5, 5)), jnp.float32))
    rolled = interpret.attention_rollout(maps)
    assert rolled.shape == (2, 5, 5)
    np.testing.assert_allclose(rolled.sum(-1), 1, rtol=1e-5)
    plain = interpret.attention_rollout(maps, residual=0.0)
    first, second, third = maps.mean(2)
    np.testing.assert_allclose(plain, third @ second @ first, rtol=1e-5)
    same = np.broadcast_to(np.eye(5), (2, 5, 5))
    np.testing.assert_array_equal(interpret.attention_rollout(maps, residual=1.0), same)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interpret.saliency(linear, X.astype(int), 0), "x must be floating point"),
        (lambda: interpret.saliency(linear, X, 0.5), "label must be an integer"),
        (lambda: interpret.saliency(linear, X, LABEL[:2]), r"integers of shape \(4,\)"),
        (lambda: interpret.integrated_gradients(linear, X, 0, steps=0), "steps must be at least 1"),
        (
            lambda: interpret.smooth_grad(linear, X, 0, key=jax.random.key(0), samples=0),
            "samples must be at least 1",
        ),
        (lambda: interpret.grad_cam(linear, X, 0), r"\[B, H, W, C\]"),
        (lambda: interpret.attention_rollout(jnp.ones((2, 3, 4, 4))), r"\[layers, B, N, T, T\]"),
        (lambda: interpret.attention_rollout(jnp.ones((1, 1, 1, 2, 2)), residual=2), "residual"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
