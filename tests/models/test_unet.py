"""U-Net: shapes, the way up by its formula, learning, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from filled import filled
from flax import nnx

from trivium.models import ResNet, UNet

SIZES = {"widths": (4, 6, 6), "depths": (0, 1, 1)}


@pytest.fixture(scope="module")
def model():
    return filled(lambda: UNet(ResNet(2, **SIZES, rngs=nnx.Rngs(0)), 3, rngs=nnx.Rngs(1)))


@pytest.fixture(scope="module")
def twice():
    """One that looks at the image and at its half."""
    return filled(lambda: UNet(ResNet(2, **SIZES, rngs=nnx.Rngs(0)), 3, scales=2, rngs=nnx.Rngs(1)))


def images(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def test_every_pixel_is_classified_and_the_backbone_is_shared(model):
    model.eval()
    x = images(2, 8, 12, 1)
    assert jax.eval_shape(model, x).shape == (2, 8, 12, 3)
    maps = jax.eval_shape(model.backbone.features, x)
    assert [each.shape[1:3] for each in maps] == [(8, 12), (4, 6), (2, 3)]


def test_below_the_maps_are_those_of_the_halved_image(twice):
    twice.eval()
    x = images(2, 8, 16, 1)
    assert jax.eval_shape(twice, x).shape == (2, 8, 16, 3)
    *maps, last = twice.features(x)
    half = x.reshape(2, 4, 2, 8, 2, 1).mean(axis=(2, 4))
    for ours, expected in zip(maps, twice.backbone.features(x), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    np.testing.assert_allclose(last, twice.backbone.features(half)[-1], atol=1e-5)
    assert last.shape == (2, 1, 2, 6)


def test_a_thing_twice_as_large_is_seen_alike(twice):
    """What stands on even places, each pixel twice as high and wide: the same coarsest maps."""
    twice.eval()
    x = images(1, 8, 8, 1)
    large = x.repeat(2, axis=1).repeat(2, axis=2)
    small = twice.backbone.features(x)[-1]
    np.testing.assert_allclose(twice.features(large)[-1], small, atol=1e-5)
    assert np.abs(twice.backbone.features(large)[-1][:, :2, :2] - small).max() > 1e-2


def test_an_up_convolution_makes_four_cells_of_one(model):
    up, x, skip = model.ups[0], jnp.asarray(images(1, 2, 3, 6)), jnp.zeros((1, 4, 6, 6))
    kernel = np.asarray(up.spread.kernel[...]).reshape(6, 2, 2, 6)
    expected = np.zeros((1, 4, 6, 6), np.float32)
    for i in range(2):
        for j in range(2):
            expected[:, i::2, j::2] = np.asarray(x) @ kernel[:, i, j]
    seen = jnp.concatenate([expected, skip], axis=-1)
    np.testing.assert_allclose(up(x, skip), jax.nn.relu(up.join(seen)), atol=1e-5)


@pytest.mark.parametrize("scales", [1, 2])
def test_gradients_are_finite_and_reach_every_filter(model, twice, scales):
    model = twice if scales == 2 else model
    graphdef, weights, rest = nnx.split(model, nnx.Param, ...)
    x = jnp.asarray(images(2, 8, 8, 1))
    masks = (x[..., 0] > 0.5).astype(jnp.int32)

    def loss(weights):
        model = nnx.merge(graphdef, weights, jax.tree.map(lambda leaf: leaf, rest))
        model.train()
        return optax.softmax_cross_entropy_with_integer_labels(model(x), masks).mean()

    flat = nnx.to_flat_state(jax.jit(jax.grad(loss))(weights))
    for path, leaf in flat:
        assert np.isfinite(leaf[...]).all(), path
        # The backbone's own answer is not asked.
        assert np.any(leaf[...]) == (path[:2] != ("backbone", "dense")) or path[-1] != "kernel"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 8, 10, 1), r"multiples of 4, not \(8, 10\)"),
        ((2, 0, 8, 1), r"multiples of 4, not \(0, 8\)"),
        ((2, 8, 8, 3), r"images must have shape \[B, H, W, 1\]"),
        ((8, 8, 1), r"images must have shape \[B, H, W, 1\]"),
    ],
)
def test_images_that_do_not_fit(model, shape, message):
    with pytest.raises(ValueError, match=message):
        model(images(*shape))


def test_a_second_look_asks_for_one_more_halving(twice):
    with pytest.raises(ValueError, match=r"multiples of 8, not \(8, 12\)"):
        twice(images(2, 8, 12, 1))


def test_sizes_must_be_positive(model):
    with pytest.raises(ValueError, match="classes must be at least 1"):
        UNet(model.backbone, 0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="scales must be at least 1"):
        UNet(model.backbone, 3, scales=0, rngs=nnx.Rngs(0))
