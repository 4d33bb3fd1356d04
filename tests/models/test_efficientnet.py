"""EfficientNet-Lite: sizes, shapes, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium.models import EfficientNet, EfficientNetConfig

SMALL = EfficientNetConfig(
    stages=((1, 4, 1, 1, 3), (2, 6, 2, 2, 5)), stem=4, head=10, classes=3, size=16
)


def test_lite0_has_its_published_parameters_less_one_a_channel():
    model = nnx.eval_shape(lambda: EfficientNet(rngs=nnx.Rngs(0)))
    state = nnx.state(model, nnx.Param)
    sizes = {".".join(map(str, path)): v.size for path, v in nnx.to_flat_state(state)}
    # Folding a batch normalization leaves one number a channel, the bias, of its two.
    folded = sum(size for name, size in sizes.items() if name.endswith("bias"))
    folded -= sizes["dense.bias"]
    assert sum(sizes.values()) == 4_631_000
    assert sum(sizes.values()) + folded == 4_652_008


@pytest.mark.parametrize("size", [(16, 16), (9, 13), (1, 1)])
def test_shapes_for_images_of_any_size(size):
    model = EfficientNet(SMALL, rngs=nnx.Rngs(0))
    images = jnp.ones((2, *size, 3))
    features = model.features(images)
    assert features.shape == (2, -(-size[0] // 4), -(-size[1] // 4), 10)
    assert bool(jnp.all((features >= 0) & (features <= 6)))
    np.testing.assert_allclose(model(images), model.classify(features), rtol=1e-6)
    assert model(images).shape == (2, 3)


def test_a_block_adds_its_input_where_it_fits():
    model = EfficientNet(SMALL, rngs=nnx.Rngs(0))
    assert [block.adds for block in model.blocks] == [True, False, True]
    block, x = model.blocks[2], jnp.ones((1, 4, 4, 6))
    block.project.kernel[...] = jnp.zeros_like(block.project.kernel[...])
    np.testing.assert_array_equal(block(x), x)


def test_the_gradient_reaches_every_filter():
    graph, state = nnx.split(EfficientNet(SMALL, rngs=nnx.Rngs(0)))
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    gradient = jax.grad(lambda s: nnx.merge(graph, s)(images)[:, 0].sum())(state)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient) if leaf.ndim == 4)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.ones((2, 8, 8, 1), np.float32), "[B, H, W, 3]"),
        (np.ones((8, 8, 3), np.float32), "[B, H, W, 3]"),
        (np.ones((1, 0, 8, 3), np.float32), "[B, H, W, 3]"),
        (np.ones((1, 8, 8, 3), np.uint8), "floating point, not uint8"),
    ],
)
def test_other_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        EfficientNet(SMALL, rngs=nnx.Rngs(0))(images)


@pytest.mark.parametrize(
    "wrong",
    [{"stem": 0}, {"classes": 2.0}, {"stages": ((1, 2, 3),)}, {"stages": ((1, 2, 0, 1, 3),)}],
)
def test_sizes_that_no_network_has_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EfficientNetConfig(**wrong)
