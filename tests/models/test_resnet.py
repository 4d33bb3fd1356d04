"""ResNet: a block by its formula, stages, learning through fit, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from filled import filled
from flax import nnx

from trivium.kernels import conv2d
from trivium.models import ResidualBlock, ResNet
from trivium.train import evaluate, fit


def images(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return filled(lambda: ResNet(3, widths=(4, 6), depths=(0, 2), rngs=nnx.Rngs(0)))


def test_a_block_adds_two_normalized_convolutions_to_its_input():
    block, x = ResidualBlock(4, 4, rngs=nnx.Rngs(1)), images(3, 6, 6, 4)
    # The last scale starts at zero: a new block is the identity (its input is not negative).
    apply = nnx.jit(lambda block, x: block(x))
    np.testing.assert_array_equal(apply(block, x), x)
    block.second.norm.scale[...] = jnp.full(4, 0.5)

    def normalized(x, part):
        y = np.asarray(conv2d(x, part.kernel[...], padding=1))
        y = (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-5)
        return y * np.asarray(part.norm.scale[...])

    change = normalized(np.maximum(normalized(x, block.first), 0), block.second)
    np.testing.assert_allclose(apply(block, x), np.maximum(x + change, 0), atol=1e-4)
    assert block.shortcut is None


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
def test_each_stage_halves_the_resolution(model, size):
    model.eval()
    maps = jax.eval_shape(model.features, images(2, *size, 1))
    assert [each.shape for each in maps] == [
        (2, *size, 4),
        (2, -(-size[0] // 2), -(-size[1] // 2), 6),
    ]


def test_the_answer_is_a_dense_layer_of_the_mean_of_the_last_maps(model):
    model.eval()
    logits, maps = nnx.jit(lambda model, x: (model(x), model.features(x)[-1]))(
        model, images(2, 8, 8, 1)
    )
    mean = np.asarray(maps).mean((1, 2))
    expected = mean @ np.asarray(model.dense.kernel[...]) + np.asarray(model.dense.bias[...])
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_finite_and_reach_every_filter(model):
    graphdef, weights, rest = nnx.split(model, nnx.Param, ...)

    def first_logits(weights):
        model = nnx.merge(graphdef, weights, jax.tree.map(lambda leaf: leaf, rest))
        model.train()
        return model(images(4, 8, 8, 1))[:, 0].sum()

    for leaf in jax.tree.leaves(jax.jit(jax.grad(first_logits))(weights)):
        assert np.isfinite(leaf).all()
        assert leaf.ndim != 4 or np.any(leaf)


def test_fit_trains_weights_and_statistics():
    model = filled(lambda: ResNet(2, widths=(4, 6), depths=(0, 1), rngs=nnx.Rngs(0)))
    x, labels = images(64, 8, 8, 1), np.arange(64, dtype=np.int32) % 2
    x[labels == 1, 2:6, 2:6] += 1
    before = np.asarray(model.stem.norm.mean[...])
    fit(model, (x, labels), epochs=8, optimizer=optax.adam(1e-2), batch_size=16, progress=False)
    assert np.any(before != np.asarray(model.stem.norm.mean[...]))
    # Scored with the running statistics, not those of a batch.
    assert evaluate(model, (x, labels))["metric"] > 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model(images(2, 8, 8, 3)), r"images must have shape \[B, H, W, 1\]"),
        (lambda model: model(images(8, 8, 1)), r"images must have shape \[B, H, W, 1\]"),
        (lambda model: model(images(2, 0, 8, 1)), r"images must have shape \[B, H, W, 1\]"),
        (lambda model: model(np.ones((2, 8, 8, 1), np.uint8)), "floating point, not uint8"),
        (lambda _: ResNet(3, widths=(4,), rngs=nnx.Rngs(0)), "widths and depths must be as many"),
        (lambda _: ResNet(3, widths=(4,), depths=(-1,), rngs=nnx.Rngs(0)), "depths must begin"),
        (lambda _: ResNet(0, rngs=nnx.Rngs(0)), "classes must be at least 1"),
    ],
)
def test_bad_input(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)
