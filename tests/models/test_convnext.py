"""ConvNeXt: a block by its formula, stages, learning, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium.models import ConvNeXt


def images(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def build(**options):
    return ConvNeXt(3, **({"size": (8, 8), "patch": 2, "widths": (4, 6), "depths": (1, 2),
                           "window": 3} | options), rngs=nnx.Rngs(0))  # fmt: skip


def test_a_block_mixes_positions_feature_by_feature_then_features():
    block = build().stages[0][0]
    x = images(1, 4, 4, 4)
    padded, filters = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), np.asarray(block.filters[...])
    mixed = sum(
        padded[:, i : i + 4, j : j + 4] * filters[i, j, 0] for i in range(3) for j in range(3)
    )
    centered = mixed - mixed.mean(-1, keepdims=True)
    normal = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6)
    change = block.contract(jax.nn.gelu(block.expand(normal)))
    np.testing.assert_allclose(block(x), x + 0.1 * change, atol=1e-4)


def test_each_stage_halves_the_resolution():
    model, x = build(), images(2, 8, 8, 1)
    stem = model.stem(x)
    assert stem.shape == (2, 4, 4, 4)
    assert model.halve[0](stem).shape == (2, 2, 2, 6)
    assert model(x).shape == (2, 3)


def test_every_parameter_has_a_gradient():
    model, x = build(channels=2), images(4, 8, 8, 2)
    slopes = jax.tree.leaves(nnx.jit(nnx.grad(lambda model: jnp.square(model(x)).sum()))(model))
    assert all(np.isfinite(slope).all() and np.any(slope) for slope in slopes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build()(images(2, 8, 8, 3)), r"images must have shape \[B, 8, 8, 1\]"),
        (lambda: build(size=(8, 10)), "size must be multiples of 4"),
        (lambda: build(window=4), "window must be odd"),
        (lambda: build(widths=(4,)), "widths and depths must be as many"),
        (lambda: build(patch=0), "patch must be at least 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
