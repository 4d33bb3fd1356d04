"""Weights from Keras and back: the same answers on both sides, and refusals that name the place."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium.models import MLP, Bert, BertConfig, ConvClassifier, LSTMClassifier
from trivium.pretrained import from_keras, to_keras

keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
LENGTHS = np.array([7, 3, 1, 5])


def conv_program():
    inputs = keras.Input((10, 12, 3))
    x = keras.layers.Conv2D(5, 3, activation="relu")(inputs)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(2)(x))
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def lstm_program():
    inputs = keras.Input((None, 6))
    x = keras.layers.LSTM(8)(keras.layers.Masking(0.0)(inputs))
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def mlp_program():
    inputs = keras.Input((9,))
    x = keras.layers.Dense(7, activation="relu")(inputs)
    x = keras.layers.Dense(5, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def conv():
    return ConvClassifier(4, size=(10, 12), channels=3, filters=5, rngs=nnx.Rngs(1))


def recurrent():
    return LSTMClassifier(6, 8, 4, rngs=nnx.Rngs(1))


def dense():
    return MLP(9, (7, 5), 4, rngs=nnx.Rngs(1))


def examples(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    if len(shape) == 3:
        for row, length in zip(x, LENGTHS, strict=True):
            row[length:] = 0
    return x


PAIRS = {
    "conv": (conv_program, conv, (4, 10, 12, 3)),
    "lstm": (lstm_program, recurrent, (4, 7, 6)),
    "mlp": (mlp_program, dense, (4, 9)),
}


def answers(model, x):
    return model(x, lengths=LENGTHS) if isinstance(model, LSTMClassifier) else model(x)


def shaken(program):
    """The program with every weight moved, biases too: zeros would hide what is exchanged."""
    random = np.random.default_rng(2)
    program.set_weights([w + random.normal(scale=0.3, size=w.shape) for w in program.get_weights()])
    return program


@pytest.mark.parametrize("name", PAIRS)
def test_there_and_back(name):
    build, make, shape = PAIRS[name]
    x = examples(shape)
    program, model = shaken(build()), make()
    from_keras(model, program.get_weights())
    np.testing.assert_allclose(answers(model, x), program.predict_on_batch(x), atol=1e-5)
    # Back, from weights that Keras has never seen.
    other = make()
    state = nnx.state(other, nnx.Param)
    nnx.update(other, jax.tree.map(lambda leaf: leaf + 0.1, state))
    program.set_weights(to_keras(other))
    np.testing.assert_allclose(program.predict_on_batch(x), answers(other, x), atol=1e-5)
    for ours, theirs in zip(to_keras(other), program.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("make", [conv, recurrent, dense])
def test_what_is_handed_out_is_a_copy(make):
    model = make()
    for array in to_keras(model):
        array[...] = np.nan
    assert all(np.isfinite(array).all() for array in to_keras(model))


def test_the_type_is_that_of_the_model():
    model = dense()
    narrow = [array.astype(np.float16) for array in to_keras(model)]
    from_keras(model, narrow)
    assert all(array.dtype == np.float32 for array in to_keras(model))
    from_keras(model, [jnp.asarray(array, jnp.bfloat16) for array in narrow])
    assert all(array.dtype == np.float32 for array in to_keras(model))


def test_refusals_name_the_place_and_change_nothing():
    model = recurrent()
    before = to_keras(model)
    fresh = [array + 1 for array in before]
    cases = [
        (fresh[:-1], r"must hold 5 arrays .*w_ih \[6, 32\].*, not 4"),
        ([fresh[0].T, *fresh[1:]], r"weights\[0\] is w_ih .*\[6, 32\], not \[32, 6\]"),
        (
            [*fresh[:2], np.tile(fresh[2], (2, 1)), *fresh[3:]],
            r"weights\[2\] is b .*\[32\], not \[2, 32\]",
        ),
        ([*fresh[:-1], fresh[-1] * np.inf], r"weights\[4\], which is dense.bias, .*not finite"),
    ]
    for weights, message in cases:
        with pytest.raises(ValueError, match=message):
            from_keras(model, weights)
        for now, then in zip(to_keras(model), before, strict=True):
            np.testing.assert_array_equal(now, then)


def test_other_models_are_refused():
    config = BertConfig(
        vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=4
    )
    with pytest.raises(NotImplementedError, match="not Bert"):
        to_keras(Bert(config, rngs=nnx.Rngs(0)))
