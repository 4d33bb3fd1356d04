"""U-Net: shapes, the way up by its formula, learning, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from trivium.models import ResNet, UNet
from trivium.train import fit, predict

SIZES = {"widths": (4, 6, 6), "depths": (1, 1, 1)}


@pytest.fixture(scope="module")
def model():
    return UNet(ResNet(2, **SIZES, rngs=nnx.Rngs(0)), 3, rngs=nnx.Rngs(1))


def images(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def test_every_pixel_is_classified_and_the_backbone_is_shared(model):
    model.eval()
    x = images(2, 8, 12, 1)
    assert model(x).shape == (2, 8, 12, 3)
    assert [each.shape[1:3] for each in model.backbone.features(x)] == [(8, 12), (4, 6), (2, 3)]


def test_an_up_convolution_makes_four_cells_of_one(model):
    up, x, skip = model.ups[0], jnp.asarray(images(1, 2, 3, 6)), jnp.zeros((1, 4, 6, 6))
    kernel = np.asarray(up.spread.kernel[...]).reshape(6, 2, 2, 6)
    expected = np.zeros((1, 4, 6, 6), np.float32)
    for i in range(2):
        for j in range(2):
            expected[:, i::2, j::2] = np.asarray(x) @ kernel[:, i, j]
    seen = jnp.concatenate([expected, skip], axis=-1)
    np.testing.assert_allclose(up(x, skip), jax.nn.relu(up.join(seen)), atol=1e-5)


def test_it_learns_which_pixels_are_bright():
    model = UNet(ResNet(2, **SIZES, rngs=nnx.Rngs(0)), 2, rngs=nnx.Rngs(1))
    x = images(32, 8, 8, 1)
    masks = (x[..., 0] > 0.5).astype(np.int32)

    def loss(logits, masks):
        return optax.softmax_cross_entropy_with_integer_labels(logits, masks).mean((1, 2))

    history = fit(
        model,
        (x, masks),
        epochs=20,
        optimizer=optax.adam(1e-2),
        loss=loss,
        metric=None,
        batch_size=8,
        progress=False,
    )
    assert np.isfinite(history.loss).all()
    assert (predict(model, x).argmax(-1) == masks).mean() > 0.9


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


def test_classes_must_be_positive(model):
    with pytest.raises(ValueError, match="classes must be at least 1"):
        UNet(model.backbone, 0, rngs=nnx.Rngs(0))
