"""The book's own weights: found, checked by hash, and put into a model of the same shapes."""

import json
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from trivium.data import CorruptFileError, DownloadError, addresses, fashion_mnist, scenes
from trivium.measures import average_precision
from trivium.models import Detector, ResNet, Tagger, TokenEncoder, UNet, structures
from trivium.pretrained import Recipe, recipe, recipes
from trivium.train import evaluate

ROOT = Path(__file__).parents[2]


def test_the_records_weights_are_there_and_restored():
    found = recipe("structures")
    model = structures.recurrent_model(63, rngs=nnx.Rngs(1))
    assert found.restore("lstm", model) is model
    # Half precision: what float16 holds, in float32.
    kernel = np.asarray(model.answer.kernel[...])
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, kernel.astype(np.float16))
    assert set(found.record["runs"]) >= {"transformer", "lstm", "vit"}


def test_other_files_and_plain_arrays_are_read_and_checked():
    found = recipe("sequence_labelling")
    words = json.loads(found.read("words.json"))
    assert words == sorted(words)
    arrays = found.weights("lstm")
    assert arrays["words"].shape == (len(words) + 2, 64)
    assert arrays["words"].dtype == np.float16
    with pytest.raises(ValueError, match=r"file: expected one of words.json, received 'letters"):
        found.read("letters.json")
    record = json.loads(json.dumps(found.record))
    record["budget"]["files"]["words.json"] = "0" * 64
    with pytest.raises(CorruptFileError, match=r"words.json has SHA-256 .* record says 000"):
        Recipe("sequence_labelling", record).read("words.json")


def test_the_classifier_is_right_as_often_as_its_record_says():
    found, count = recipe("image_classification"), 500
    model = found.restore("resnet", nnx.eval_shape(lambda: ResNet(10, rngs=nnx.Rngs(0))))
    inputs, labels = (part[:count] for part in fashion_mnist().test)
    right = evaluate(model, (inputs, labels))["metric"]
    recorded = found.record["runs"]["resnet"]["test"]["metric"]
    # A share of so few pictures has this standard deviation.
    assert abs(right - recorded) < 3 * (recorded * (1 - recorded) / count) ** 0.5


def test_detector_and_unet_do_on_some_scenes_what_their_records_say_of_all():
    """A hundred of the thousand test scenes, so the bounds are those of a small sample."""
    some = scenes(count_train=0, count_test=100).test

    def restored(task, run, model):
        found = recipe(task)
        model = found.restore(run, nnx.eval_shape(model))
        model.eval()
        return model, found.record["runs"][run]["test"]

    detector, recorded = restored(
        "object_detection",
        "detector",
        lambda: Detector(ResNet(10, rngs=nnx.Rngs(0)), 10, rngs=nnx.Rngs(0)),
    )
    found = nnx.jit(Detector.detect)(detector, some.images)
    precision = average_precision(found, some.boxes, some.classes, count=10)
    assert abs(precision.at_50 - recorded["at_50"]) < 0.06
    assert abs(precision.mean - recorded["mean"]) < 0.06
    unet, recorded = restored(
        "semantic_segmentation",
        "unet",
        lambda: UNet(ResNet(10, rngs=nnx.Rngs(0)), 11, scales=2, rngs=nnx.Rngs(0)),
    )
    logits = nnx.jit(lambda model, images: model(images))(unet, some.images)
    right = (np.asarray(logits).argmax(axis=-1) == some.masks).mean()
    assert abs(right - recorded["pixels"]) < 0.02


def test_all_weights_together_stay_small():
    files = list((ROOT / "recipes" / "structures").glob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) < 2.2e6
    tasks = ("image_classification", "object_detection", "semantic_segmentation")
    images = [file for task in tasks for file in (ROOT / "recipes" / task).glob("*.safetensors")]
    assert len(images) == 3
    assert sum(file.stat().st_size for file in images) < 4e6


def test_a_model_of_other_shapes_is_refused():
    model = structures.recurrent_model(63, width=24, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"not those of 'lstm'; they differ in answer.kernel"):
        recipe("structures").restore("lstm", model)


def test_other_bytes_are_refused():
    record = json.loads(json.dumps(recipe("structures").record))
    record["runs"]["lstm"]["sha256"] = "0" * 64
    with pytest.raises(CorruptFileError, match=r"lstm.safetensors has SHA-256 .* record says 000"):
        Recipe("structures", record).restore(
            "lstm", structures.recurrent_model(63, rngs=nnx.Rngs(0))
        )


@pytest.mark.parametrize("name", ["nothing", "../data"])
def test_unknown_names(name):
    with pytest.raises(ValueError, match="recipe"):
        recipe(name)
    with pytest.raises(ValueError, match="run: expected one of"):
        recipe("structures").restore("gpt", structures.recurrent_model(63, rngs=nnx.Rngs(0)))


def test_without_a_repository_the_error_says_where_to_put_the_file(monkeypatch, tmp_path):
    monkeypatch.setattr(recipes, "__file__", str(tmp_path / "site/trivium/pretrained/recipes.py"))
    monkeypatch.setenv("TRIVIUM_DATA", str(tmp_path))
    monkeypatch.setattr(recipes, "own", lambda name, folder: ())
    with pytest.raises(DownloadError, match=r"recipes/structures/record.json is in the repository"):
        recipe("structures")


def test_the_taggers_reach_what_the_record_says_and_more_than_the_baseline():
    """On the whole test part: half-precision weights, put into models of the record's sizes."""
    found, data = recipe("sequence_labelling"), addresses()
    budget = found.record["budget"]
    encoder = TokenEncoder(tuple(json.loads(found.read("words.json"))))
    numbers = [encoder(tokens) for tokens in data.test.tokens]
    lengths = np.array([len(each) for each in numbers], np.int32)
    tokens = np.zeros((len(numbers), lengths.max(), numbers[0].shape[1]), np.int32)
    labels = np.full(tokens.shape[:2], -1, np.int32)
    for row, (each, known) in enumerate(zip(numbers, data.test.labels, strict=True)):
        tokens[row, : len(each)], labels[row, : len(each)] = each, known
    for body in ("lstm", "transformer"):
        model = Tagger(
            encoder.size,
            len(data.labels),
            body=body,
            hidden=budget["hidden"][body],
            rngs=nnx.Rngs(1),
        )
        found.restore(body, model)
        best = np.asarray(nnx.jit(Tagger.tag)(model, tokens, lengths=lengths))
        accuracy = (best == labels)[labels >= 0].mean()
        recorded = found.record["runs"][body]["test"]
        assert accuracy == pytest.approx(recorded["accuracy"], abs=0.005)
        assert recorded["accuracy"] > budget["crfsuite"]["test"]["accuracy"]
    lstm = found.record["runs"]["lstm"]["test"]
    assert lstm["entity_f1"] > budget["crfsuite"]["test"]["entity_f1"]
