"""The recurrence family against its sizes, Keras, padding and bad input."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium.models import LSTMClassifier

os.environ.setdefault("KERAS_BACKEND", "jax")


def count(model):
    return sum(parameter.size for parameter in jax.tree.leaves(nnx.state(model, nnx.Param)))


def sequences(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def test_counts_parameters():
    # Four gates, each with weights from 12 features, from 64 states, and a bias; then 9 answers.
    assert count(LSTMClassifier(12, 64, 9, rngs=nnx.Rngs(0))) == 4 * 64 * (12 + 64 + 1) + 65 * 9


def test_agrees_with_keras():
    keras = pytest.importorskip("keras")
    model = LSTMClassifier(12, 64, 9, rngs=nnx.Rngs(0))
    with jax.numpy_dtype_promotion("standard"):
        peer = keras.Sequential(
            [
                keras.layers.Input((None, 12)),
                keras.layers.Masking(),
                keras.layers.LSTM(64),
                keras.layers.Dense(9),
            ]
        )
        assert count(model) == peer.count_params()
        weights = (model.w_ih, model.w_hh, model.b, model.dense.kernel, model.dense.bias)
        peer.set_weights([np.asarray(weight[...]) for weight in weights])
        x, lengths = sequences(4, 29, 12), np.array([29, 7, 1, 16])
        x[np.arange(29) >= lengths[:, None]] = 0  # what Keras's Masking takes for padding
        expected = np.asarray(peer(x))
    np.testing.assert_allclose(model(x, lengths=lengths), expected, atol=1e-5)


def test_starts_as_keras_does():
    model = LSTMClassifier(12, 64, 9, rngs=nnx.Rngs(0))
    limit = np.sqrt(6 / (12 + 4 * 64))
    assert 0.9 * limit < np.abs(model.w_ih[...]).max() <= limit
    np.testing.assert_allclose(model.w_hh[...] @ model.w_hh[...].T, np.eye(64), atol=1e-5)
    np.testing.assert_array_equal(model.b[...].reshape(4, 64).sum(axis=1), [0, 64, 0, 0])


def test_padding_changes_nothing():
    model = LSTMClassifier(3, 8, 2, rngs=nnx.Rngs(0))
    x = sequences(1, 5, 3)
    padded = np.concatenate([x, np.full((1, 4, 3), 1e3, np.float32)], axis=1)
    np.testing.assert_allclose(model(padded, lengths=np.array([5])), model(x), atol=1e-6)


def test_an_empty_sequence_is_answered_from_zeros():
    model = LSTMClassifier(3, 8, 2, rngs=nnx.Rngs(0))
    model.dense.bias[...] = jnp.array([1.0, 2.0])
    np.testing.assert_allclose(model(sequences(1, 5, 3), lengths=np.array([0])), [[1.0, 2.0]])


def test_bfloat16_sequences_give_float32_logits():
    model = LSTMClassifier(12, 64, 9, rngs=nnx.Rngs(0))
    x = jnp.asarray(sequences(4, 29, 12))
    logits = model(x.astype(jnp.bfloat16))
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, model(x), atol=0.05)


def test_works_in_a_compiled_gradient():
    graph, state = nnx.split(LSTMClassifier(3, 8, 2, rngs=nnx.Rngs(0)))

    @jax.jit
    def gradient(state, x, lengths):
        def loss(state):
            return nnx.merge(graph, state)(x, lengths=lengths)[:, 0].sum()

        return jax.grad(loss)(state)

    slopes = jax.tree.leaves(gradient(state, sequences(2, 5, 3), np.array([5, 0])))
    assert len(slopes) == 5
    assert all(np.isfinite(slope).all() and np.any(slope) for slope in slopes)


@pytest.mark.parametrize(
    "wrong",
    [
        sequences(5, 3),
        sequences(2, 5, 4),
        sequences(2, 5, 3, dtype=np.int32),
    ],
)
def test_refuses_other_sequences(wrong):
    with pytest.raises(ValueError, match="sequences must"):
        LSTMClassifier(3, 8, 2, rngs=nnx.Rngs(0))(wrong)


@pytest.mark.parametrize("lengths", [[6, 1], [-1, 1], [1], [1.0, 2.0]])
def test_refuses_impossible_lengths(lengths):
    with pytest.raises(ValueError, match="lengths"):
        LSTMClassifier(3, 8, 2, rngs=nnx.Rngs(0))(sequences(2, 5, 3), lengths=np.array(lengths))


@pytest.mark.parametrize("named", ["features", "hidden", "classes"])
def test_refuses_impossible_sizes(named):
    sizes = {"features": 3, "hidden": 8, "classes": 2, named: 0}
    with pytest.raises(ValueError, match=named):
        LSTMClassifier(**sizes, rngs=nnx.Rngs(0))
