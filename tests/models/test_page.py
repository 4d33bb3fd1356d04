"""Networks folded and rounded for the page: close to the original; other layers are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium.models import Detector, ResNet, UNet, page_layers, with_page_layers


def backbone(**sizes):
    return ResNet(3, **({"widths": (4, 8), "depths": (0, 1)} | sizes), rngs=nnx.Rngs(0))


MODELS = {
    "resnet": backbone,
    "unet": lambda: UNet(backbone(), 5, rngs=nnx.Rngs(1)),
    "unet of two sizes": lambda: UNet(backbone(), 5, scales=2, rngs=nnx.Rngs(1)),
    "detector": lambda: Detector(backbone(), 3, stride=2, rngs=nnx.Rngs(1)),
}


def used(model):
    """The model with statistics of its own."""
    random = np.random.default_rng(0)

    def vary(leaf):
        drawn = random.normal(size=leaf.shape).astype(np.float32)
        return leaf + (0.3 * np.abs(drawn) if leaf.ndim < 2 else 0.05 * drawn)

    for kind in (nnx.Param, nnx.BatchStat):
        nnx.update(model, jax.tree.map(vary, nnx.state(model, kind)))
    model.eval()
    return model


@pytest.mark.parametrize("kind", MODELS)
def test_rounded_models_answer_almost_the_same(kind):
    model = used(MODELS[kind]())
    images = np.random.default_rng(0).random((2, 8, 8, 1)).astype(np.float32)
    layers = page_layers(model)
    before = jax.tree.map(np.asarray, nnx.state(model))
    rounded = with_page_layers(model, layers)
    for ours, theirs in zip(
        jax.tree.leaves(model(images)), jax.tree.leaves(rounded(images)), strict=True
    ):
        # Half a step in each of a few layers.
        np.testing.assert_allclose(theirs, ours, rtol=0.05, atol=0.05 * np.abs(ours).max())
        assert not np.array_equal(ours, theirs)
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(nnx.state(model)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_folding_is_exact_up_to_the_rounding_of_weights():
    """Kernels that are whole numbers of steps stay as they are, so nothing but float32 differs."""
    model = used(backbone(widths=(4,), depths=(0,)))
    norm = model.stem.norm
    factor = norm.scale[...] / jnp.sqrt(norm.var[...] + norm.epsilon)
    steps = np.random.default_rng(0).integers(-127, 128, model.stem.kernel.shape)
    steps[0, 0] = 127
    model.stem.kernel[...] = jnp.asarray(steps, jnp.float32) / factor / 256
    layers = page_layers(model)
    np.testing.assert_array_equal(layers["stem"]["codes"].reshape(steps.shape), steps + 128)
    images = np.random.default_rng(1).random((1, 6, 6, 1)).astype(np.float32)
    np.testing.assert_allclose(
        with_page_layers(model, layers).features(images)[0],
        model.features(images)[0],
        rtol=1e-5,
        atol=1e-6,
    )


def test_what_the_layers_are():
    layers = page_layers(used(MODELS["unet"]()))
    assert {"backbone.stem", "backbone.stages.1.0.shortcut", "ups.0.spread", "answer"} <= set(
        layers
    )
    stem = layers["backbone.stem"]
    assert stem["codes"].shape == (9, 4)
    assert stem["codes"].dtype == np.uint8
    assert (stem["side"], layers["answer"]["side"]) == (3, 1)
    np.testing.assert_array_equal(layers["ups.0.spread"]["bias"], 0)


def test_layers_of_another_model_are_refused():
    layers = page_layers(used(backbone()))
    with pytest.raises(ValueError, match=r"differ in .*stages.1.1.first"):
        with_page_layers(backbone(depths=(0, 2)), layers)
    with pytest.raises(ValueError, match=r"dense must be \[16, 3\], not \[8, 3\]"):
        with_page_layers(backbone(widths=(4, 16)), layers | {
            name: layer for name, layer in page_layers(backbone(widths=(4, 16))).items()
            if name != "dense"
        })  # fmt: skip


def test_a_model_without_layers_is_refused():
    class Nothing(nnx.Module):
        pass

    with pytest.raises(ValueError, match="model must have convolutions, Nothing has none"):
        page_layers(Nothing())
