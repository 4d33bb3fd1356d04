"""The Vision Transformer: patches, positions, learning, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium.models import ViT


def images(*shape, dtype=np.float32):
    return np.random.default_rng(0).random(shape).astype(dtype)


def build(**options):
    return ViT(3, **({"size": (8, 12), "patch": 4, "width": 8, "depth": 2} | options),
               rngs=nnx.Rngs(0))  # fmt: skip


def test_a_patch_is_a_row_of_pixels_times_a_matrix():
    model, x = build(), images(2, 8, 12, 1)
    rows = x.reshape(2, 2, 4, 3, 4).swapaxes(2, 3).reshape(2, 6, 16)
    expected = rows @ np.asarray(model.patches.kernel[...]).reshape(16, 8)
    np.testing.assert_allclose(model.patches(x).reshape(2, 6, 8), expected, atol=1e-5)


def test_only_the_positions_tell_the_patches_apart():
    model, x = build(), images(2, 8, 12, 1)
    swapped = np.concatenate([x[:, 4:], x[:, :4]], axis=1)
    assert np.abs(model(x) - model(swapped)).max() > 1e-4
    model.positions[...] = jnp.zeros_like(model.positions[...])
    np.testing.assert_allclose(model(x), model(swapped), atol=1e-5)


def test_every_parameter_has_a_gradient():
    model, x = build(channels=2), images(4, 8, 12, 2)
    slopes = jax.tree.leaves(nnx.jit(nnx.grad(lambda model: jnp.square(model(x)).sum()))(model))
    assert all(np.isfinite(slope).all() and np.any(slope) for slope in slopes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build()(images(2, 12, 8, 1)), r"images must have shape \[B, 8, 12, 1\]"),
        (lambda: build()(images(2, 8, 12, 1, dtype=np.uint8)), "images must be floating point"),
        (lambda: build(patch=5), "size must be multiples of patch=5"),
        (lambda: build(heads=3), "heads=3 must divide width=8"),
        (lambda: build(depth=0), "depth must be at least 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
