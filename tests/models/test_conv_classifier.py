"""The convolution family against its sizes, Keras, and bad input."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium.models import ConvClassifier

os.environ.setdefault("KERAS_BACKEND", "jax")


def count(model):
    return sum(parameter.size for parameter in jax.tree.leaves(nnx.state(model, nnx.Param)))


def images(*shape, dtype=np.float32):
    return np.random.default_rng(0).random(shape).astype(dtype)


def test_the_article_counts_54410_parameters():
    assert count(ConvClassifier(rngs=nnx.Rngs(0))) == 54_410


@pytest.mark.parametrize(
    ("size", "channels", "filters", "classes"), [((28, 28), 1, 32, 10), ((9, 12), 3, 5, 4)]
)
def test_agrees_with_keras(size, channels, filters, classes):
    keras = pytest.importorskip("keras")
    model = ConvClassifier(classes, size=size, channels=channels, filters=filters, rngs=nnx.Rngs(0))
    with jax.numpy_dtype_promotion("standard"):
        peer = keras.Sequential(
            [
                keras.layers.Input((*size, channels)),
                keras.layers.Conv2D(filters, 3, activation="relu"),
                keras.layers.MaxPooling2D(2),
                keras.layers.Flatten(),
                keras.layers.Dense(classes),
            ]
        )
        assert count(model) == peer.count_params()
        model.conv.bias[...] = jnp.linspace(-1, 1, filters)
        model.dense.bias[...] = jnp.linspace(-1, 1, classes)
        peer.set_weights(
            [
                np.asarray(parameter[...])
                for layer in (model.conv, model.dense)
                for parameter in (layer.kernel, layer.bias)
            ]
        )
        x = images(3, *size, channels)
        expected = np.asarray(peer(x))
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


def test_starts_as_keras_does():
    model = ConvClassifier(rngs=nnx.Rngs(0))
    for kernel, fans in ((model.conv.kernel, 9 * (1 + 32)), (model.dense.kernel, 5408 + 10)):
        limit = np.sqrt(6 / fans)
        assert 0.9 * limit < np.abs(kernel[...]).max() <= limit
    assert not np.any(model.conv.bias[...])
    assert not np.any(model.dense.bias[...])


def test_features_are_the_maps_on_the_way():
    model = ConvClassifier(rngs=nnx.Rngs(0))
    maps = model.features(images(2, 28, 28, 1))
    assert {name: value.shape for name, value in maps.items()} == {
        "conv": (2, 26, 26, 32),
        "pool": (2, 13, 13, 32),
    }
    assert maps["conv"].min() >= 0
    windows = np.asarray(maps["conv"]).reshape(2, 13, 2, 13, 2, 32)
    np.testing.assert_array_equal(maps["pool"], windows.max(axis=(2, 4)))
    logits = model.dense(maps["pool"].reshape(2, -1))
    np.testing.assert_allclose(model(images(2, 28, 28, 1)), logits, atol=1e-6)


def test_bfloat16_images_give_float32_logits():
    model = ConvClassifier(rngs=nnx.Rngs(0))
    x = jnp.asarray(images(4, 28, 28, 1))
    maps, logits = model.features(x.astype(jnp.bfloat16)), model(x.astype(jnp.bfloat16))
    assert maps["pool"].dtype == jnp.bfloat16
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, model(x), atol=0.02)


def test_works_in_a_compiled_gradient():
    model = ConvClassifier(rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)

    @jax.jit
    def gradient(state, x):
        return jax.grad(lambda state: nnx.merge(graph, state)(x).sum())(state)

    slopes = jax.tree.leaves(gradient(state, images(2, 28, 28, 1)))
    assert len(slopes) == 4
    assert all(np.isfinite(slope).all() and np.any(slope) for slope in slopes)


@pytest.mark.parametrize(
    "wrong",
    [
        images(28, 28, 1),
        images(2, 28, 28),
        images(2, 28, 28, 3),
        images(2, 27, 28, 1),
        images(2, 28, 28, 1, dtype=np.uint8),
    ],
)
def test_refuses_other_images(wrong):
    with pytest.raises(ValueError, match="images must"):
        ConvClassifier(rngs=nnx.Rngs(0))(wrong)


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"classes": 0}, "classes"),
        ({"channels": 0}, "channels"),
        ({"filters": -1}, "filters"),
        ({"size": (28, 3)}, "size"),
    ],
)
def test_refuses_impossible_sizes(sizes, named):
    with pytest.raises(ValueError, match=named):
        ConvClassifier(**sizes, rngs=nnx.Rngs(0))


def test_the_features_are_those_that_the_logits_come_from():
    """The forward pass adds bias and ReLU after pooling: equal to the bit."""
    model = ConvClassifier(classes=3, size=(9, 8), filters=4, rngs=nnx.Rngs(0))
    model.conv.bias[...] = jnp.asarray([0.3, -0.2, 0.0, -1.5])
    images = jnp.asarray(np.random.default_rng(0).random((2, 9, 8, 1), np.float32))
    pooled = model.features(images)["pool"]
    assert float(pooled.min()) == 0 < float(pooled.max())
    expected = model.dense(pooled.reshape(2, -1))
    np.testing.assert_array_equal(model(images), expected)
