"""The plain network against its formula, Keras, and bad input."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium.models import MLP

os.environ.setdefault("KERAS_BACKEND", "jax")


def count(model):
    return sum(parameter.size for parameter in jax.tree.leaves(nnx.state(model, nnx.Param)))


def examples(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def test_one_hidden_layer_is_its_formula():
    model = MLP(3, 5, 4, rngs=nnx.Rngs(0))
    model.hidden[0].bias[...] = jnp.linspace(-1, 1, 5)
    model.dense.bias[...] = jnp.linspace(-1, 1, 4)
    x = examples(7, 3)
    (layer,) = model.hidden
    hidden = np.maximum(0, x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...]))
    expected = hidden @ np.asarray(model.dense.kernel[...]) + np.asarray(model.dense.bias[...])
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
    np.testing.assert_allclose(model.layers(x)[0], hidden, atol=1e-5)


@pytest.mark.parametrize(
    ("hidden", "parameters"),
    [(128, 784 * 128 + 128 + 1290), ((), 7850), ((20, 30), 785 * 20 + 21 * 30 + 31 * 10)],
)
def test_counts_its_parameters(hidden, parameters):
    model = MLP(784, hidden, 10, rngs=nnx.Rngs(0))
    assert count(model) == parameters
    assert model(examples(2, 28, 28, 1)).shape == (2, 10)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_agrees_with_keras(activation):
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    model = MLP(6, (5, 4), 3, activation=getattr(jax.nn, activation), rngs=nnx.Rngs(0))
    layers = [*model.hidden, model.dense]
    with jax.numpy_dtype_promotion("standard"):
        peer = keras.Sequential(
            [
                keras.layers.Input((2, 3)),
                keras.layers.Flatten(),
                keras.layers.Dense(5, activation=activation),
                keras.layers.Dense(4, activation=activation),
                keras.layers.Dense(3),
            ]
        )
        for layer in layers:
            layer.bias[...] = jnp.linspace(-1, 1, layer.bias.size)
        peer.set_weights(
            [np.asarray(part[...]) for layer in layers for part in (layer.kernel, layer.bias)]
        )
        x = examples(4, 2, 3)
        expected = np.asarray(peer(x))
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


def test_a_wide_network_starts_with_signals_of_equal_size():
    model = MLP(512, (512, 512, 512), 10, rngs=nnx.Rngs(0))
    x = examples(64, 512)
    for layer in model.layers(x):
        assert 0.8 < np.mean(np.square(layer)) / np.mean(np.square(x)) < 1.25
    assert not any(np.any(layer.bias[...]) for layer in [*model.hidden, model.dense])


def test_bfloat16_examples_give_float32_logits():
    model = MLP(16, 8, 3, rngs=nnx.Rngs(0))
    x = jnp.asarray(examples(5, 16)).astype(jnp.bfloat16)
    logits = model(x)
    assert logits.dtype == jnp.float32
    np.testing.assert_array_equal(logits, model(x.astype(jnp.float32)))


def test_works_in_a_compiled_gradient():
    model = MLP(4, (3, 3), 2, rngs=nnx.Rngs(0))
    x = examples(9, 4)
    slopes = jax.tree.leaves(nnx.jit(nnx.grad(lambda model: jnp.square(model(x)).sum()))(model))
    assert len(slopes) == 6
    assert all(np.isfinite(slope).all() and np.any(slope) for slope in slopes)


@pytest.mark.parametrize(
    "wrong", [examples(4), examples(2, 5), examples(2, 2, 3), np.ones((2, 4), np.uint8)]
)
def test_refuses_other_examples(wrong):
    with pytest.raises(ValueError, match="x must"):
        MLP(4, 3, 2, rngs=nnx.Rngs(0))(wrong)


@pytest.mark.parametrize(
    ("sizes", "named"),
    [((0, 3, 2), "features"), ((4, (3, 0), 2), "hidden"), ((4, 3, 0), "classes")],
)
def test_refuses_impossible_sizes(sizes, named):
    with pytest.raises(ValueError, match=named):
        MLP(*sizes, rngs=nnx.Rngs(0))
