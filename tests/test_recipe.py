"""A recipe that was stopped goes on where it was, and its record says what its weights are."""

import hashlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from trivium.data import Examples, compose
from trivium.models import ResNet, UNet
from trivium.pretrained import recipe, recipes
from trivium.train import accuracy

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
import _recipe
import _scenes
import semantic_segmentation

CONFIGURATION = {"rate": 0.5, "model": "line"}
SMALL = {"widths": (4,), "depths": (0,)}


class Stopped(Exception):
    """What a test throws in the middle of a training."""


@jax.jit
def run(state, batches):
    """A few steps of something that forgets nothing: any stage done twice or left out shows."""

    def step(state, batch):
        weights, moment = state
        moment = 0.9 * moment + jnp.sin(weights) * batch
        return (weights - 0.1 * moment, moment), jnp.abs(moment).sum()

    state, sizes = jax.lax.scan(step, state, batches)
    return state, sizes.mean()


def data(stage):
    return np.random.default_rng(stage).normal(size=(5, 3)).astype(np.float32)


def train(folder, data=data, **changes):
    state = (jnp.ones(3), jnp.zeros(3))
    return _recipe.train(
        run, state, data, stages=4, folder=folder, configuration=CONFIGURATION | changes
    )


def test_a_training_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    whole, scores, _ = train(tmp_path / "whole")
    asked = []

    def until_the_third(stage):
        asked.append(stage)
        if stage == 2 and len(asked) == 3:
            raise Stopped
        return data(stage)

    with pytest.raises(Stopped):
        train(tmp_path / "stopped", until_the_third)
    resumed, again, seconds = train(tmp_path / "stopped", until_the_third)
    assert asked == [0, 1, 2, 2, 3]
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert again == scores
    assert len(scores) == 4
    assert len(seconds["clock"]) == len(seconds["processor"]) == 4


def test_a_finished_training_is_not_repeated(tmp_path):
    first, scores, _ = train(tmp_path)

    def nothing(stage):
        raise AssertionError(f"stage {stage} was asked for")

    second, again, _ = train(tmp_path, nothing)
    jax.tree.map(np.testing.assert_array_equal, second, first)
    assert again == scores


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(ValueError, match="rate"):
        train(tmp_path, rate=0.25)


def test_weights_and_record(tmp_path):
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    _recipe.halve(model)
    _recipe.write_weights(model, tmp_path / "line.safetensors")
    _recipe.write_record(tmp_path / "record.json", "line", {"loss": 0.123456789}, {"steps": 4})
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    entry = record["runs"]["line"]
    content = (tmp_path / "line.safetensors").read_bytes()
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["loss"] == 0.123457
    assert record["budget"] == {"steps": 4}
    assert entry["machine"]["jax"] == jax.__version__
    assert _recipe.count(model) == 8


def test_statistics_of_batches_are_kept_with_the_weights(monkeypatch, tmp_path):
    model = ResNet(3, **SMALL, rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).random((4, 6, 6, 1)).astype(np.float32)
    model(images)
    model.eval()
    assert np.any(model.stem.norm.mean[...])
    _recipe.halve(model)
    _recipe.write_weights(model, tmp_path / "resnet.safetensors")
    _recipe.write_record(tmp_path / "record.json", "resnet", {}, {})
    monkeypatch.setattr(recipes, "_find", lambda name, file: tmp_path / file)
    abstract = nnx.eval_shape(lambda: ResNet(3, **SMALL, rngs=nnx.Rngs(1)))
    for other in (ResNet(3, **SMALL, rngs=nnx.Rngs(1)), abstract):
        restored = recipe("any").restore("resnet", other)
        restored.eval()
        np.testing.assert_array_equal(restored(images), model(images))


def test_a_model_with_statistics_goes_on_from_its_checkpoint(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 6, 6, 1)).astype(np.uint8)
    labels = np.arange(24, dtype=np.int32).reshape(3, 2, 4) % 3
    held_out = (images[0], labels[0])

    def trained(folder, *stages):
        for last in stages:
            model = ResNet(3, **SMALL, rngs=nnx.Rngs(0))
            state, run = _recipe.stepper(
                model,
                optax.sgd(1e-2, momentum=0.9),
                optax.softmax_cross_entropy_with_integer_labels,
                accuracy,
            )
            state, scores, _ = _recipe.train(
                run,
                state,
                lambda stage: ((images[stage], labels[stage]), held_out),
                stages=last,
                folder=tmp_path / folder,
                configuration={},
            )
        nnx.update(model, *state[:2])
        return scores, nnx.to_flat_state(nnx.state(model, _recipe.KEPT))

    scores, whole = trained("whole", 3)
    again, interrupted = trained("interrupted", 1, 3)
    assert np.shape(scores) == (3, 2)
    assert scores == again
    for (place, leaf), (_, other) in zip(whole, interrupted, strict=True):
        np.testing.assert_array_equal(leaf[...], other[...], err_msg=str(place))


@pytest.fixture(scope="module")
def composed():
    random = np.random.default_rng(0)
    pictures = random.random((30, 28, 28, 1)).astype(np.float32)
    return compose(Examples(pictures, random.integers(0, 10, 30)), 40, seed=0)


def test_crowded_scenes_are_those_with_the_most_garments(composed):
    found = _scenes.crowded(composed, 10, np.random.default_rng(0))
    assert sorted(found.counts) == sorted(composed.counts)[-10:]
    for scene, mask, count in zip(found.images, found.masks, found.counts, strict=True):
        (row,) = np.flatnonzero((composed.images == scene).all(axis=(1, 2, 3)))
        np.testing.assert_array_equal(composed.masks[row], mask)
        assert composed.counts[row] == count


def test_a_mirrored_scene_has_mirrored_masks_and_boxes(composed):
    found = _scenes.mirrored(composed, np.random.default_rng(0))
    turned = (found.images != composed.images).any(axis=(1, 2, 3))
    assert 10 < turned.sum() < 30
    np.testing.assert_array_equal(found.masks[~turned], composed.masks[~turned])
    np.testing.assert_array_equal(found.masks[turned], composed.masks[turned, :, ::-1])
    for mask, boxes, kinds in zip(found.masks, found.boxes, found.classes, strict=True):
        for (top, left, bottom, right), kind in zip(boxes.astype(int), kinds, strict=True):
            if kind >= 0:
                seen = mask[top:bottom, left:right] == 1 + kind
                assert seen.any(axis=0)[[0, -1]].all()
                assert seen.any(axis=1)[[0, -1]].all()


def test_statistics_that_shall_stay_do_and_new_weights_move():
    """A stage as the U-Net's recipe takes it: the backbone's normalization learns nothing."""
    model = UNet(ResNet(2, widths=(4, 6), depths=(0, 1), rngs=nnx.Rngs(0)), 3, rngs=nnx.Rngs(0))

    before = jax.tree.map(np.asarray, nnx.split(model, nnx.Param, ...)[2])
    loss = semantic_segmentation.loss
    state, stage = _recipe.stepper(
        model, optax.sgd(0.1), loss, loss, semantic_segmentation.learning
    )
    random = np.random.default_rng(0)
    batch = random.random((2, 4, 8, 8, 1), np.float32), random.integers(0, 3, (2, 4, 8, 8))
    (_, rest, _), _ = stage(state, (batch, batch))
    pairs = zip(nnx.to_flat_state(before), nnx.to_flat_state(rest), strict=True)
    moved = {path[0] for (path, old), (_, new) in pairs if not np.array_equal(old[...], new[...])}
    assert moved == {"ups"}
