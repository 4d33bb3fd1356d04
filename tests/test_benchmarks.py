"""The benchmarks: each can be run, and what they measured has the form that the book reads."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
RESULTS = sorted(path.stem for path in (FOLDER / "results").glob("*.json"))
# What was asked for: (floor, aim) against the fastest of the peers, for each target of a case.
ASKED = {
    "cnn_step": {"batch 32": [(1.3, 2)], "batch 128": [(1.3, 2)]},
    "lstm_step": {"batch 32": [(1.0, 1.5)], "batch 128": [(1.0, 1.5)]},
    "minilm_step": {"32 x 64 tokens": [(0.75, 1.0)]},
    "generation": {"32 tokens after a prompt": [(1.0, 1.5), (2.0, 4.0)]},
    "convolution": {
        "64 x 28 x 28, 1 to 32 channels": [(0.5, 1.0), (2, 4)],
        "64 x 28 x 28, 32 to 64 channels": [(0.5, 1.0), (2, 4)],
        "64 x 14 x 14, 64 to 128 channels": [(0.5, 1.0), (2, 4)],
    },
    "attention": {
        "forward": [(0.5, 1.0), (2, 4)],
        "forward and gradient": [(0.5, 1.0), (2, 4)],
    },
    "cnn_program": {"5 epochs, batches of 32": []},
    # No peers: what to expect of the models of the applications.
    "inference": {
        "100 garments of 28 x 28, ResNet": [],
        "8 photographs of 224 x 224, EfficientNet": [],
        "16 scenes of 96 x 96, Detector": [],
        "16 scenes of 96 x 96, UNet": [],
        "32 snippets of 32 tokens, BertClassifier": [],
        "64 addresses of 8 tokens, Tagger": [],
        "32 strings of 16 pieces, Seq2Seq": [],
        "32 strings of 16 pieces, AttentionalLSTM": [],
    },
}


@pytest.fixture(scope="module")
def harness():
    """The module that the benchmarks share."""
    spec = importlib.util.spec_from_file_location("_harness", FOLDER / "_harness.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(name):
    """The record of a benchmark."""
    return json.loads((FOLDER / "results" / f"{name}.json").read_text(encoding="utf-8"))


def check_times(times):
    """Median and quartiles belong to the blocks they are said to summarize."""
    assert times["trivium"]
    for measured in times.values():
        blocks = measured["blocks"]
        assert len(blocks) >= 2
        assert min(blocks) > 0
        low, median, high = np.quantile(blocks, (0.25, 0.5, 0.75))
        assert [measured["median"], *measured["quartiles"]] == pytest.approx([median, low, high])
        assert isinstance(measured["variant"], str)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_explains_itself(name):
    run = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", "--help"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "usage:" in run.stdout
    assert "?" in run.stdout  # its question


def test_every_script_has_a_result_and_every_result_a_script():
    """But for those that need a GPU, which have one only where there was one."""
    assert set(RESULTS) <= set(SCRIPTS)
    assert all(name.startswith("gpu_") for name in set(SCRIPTS) - set(RESULTS))


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_says_where_and_with_what_it_was_measured(name):
    record = read(name)
    assert record["name"] == name
    assert len(record["date"]) == len("2026-01-01")
    assert record["question"]
    assert record["unit"]
    assert set(record["hardware"]) >= {"processor", "cores", "system"}
    assert {"python", "jax"} <= set(record["versions"])


@pytest.mark.parametrize("name", sorted(ASKED))
def test_the_ratios_follow_from_the_times_and_the_targets_are_those_asked_for(name):
    cases = read(name)["cases"]
    asked = {
        case["case"]: [(target["floor"], target["aim"]) for target in case["targets"]]
        for case in cases
    }
    assert asked == ASKED[name]
    for case in cases:
        times = case["times"]
        check_times(times)
        for target in case["targets"]:
            medians = {each: times[each]["median"] for each in target["against"]}
            assert "trivium" not in medians
            assert target["fastest"] == min(medians, key=medians.get)
            assert target["ratio"] == pytest.approx(
                min(medians.values()) / times["trivium"]["median"]
            )
        # Where one target is all there is, it is against every peer.
        if len(case["targets"]) == 1:
            assert {"trivium", *case["targets"][0]["against"]} == set(times)


def test_growth_has_ceilings_and_curves():
    record = read("growth")
    for ceiling in record["ceilings"].values():
        assert ceiling["per_second"] > 0
        assert ceiling["by"]
    assert set(record["ceilings"]) == {"product", "copy"}
    assert {curve["kernel"] for curve in record["curves"]} == {"convolution", "lstm", "attention"}
    for curve in record["curves"]:
        values = [point["value"] for point in curve["points"]]
        assert values == sorted(values)
        assert len(values) >= 5
        for point in curve["points"]:
            check_times(point["times"])
            assert point["operations"] > 0
            assert point["bytes"] > 0


def test_the_encoders_agree_with_transformers():
    record = read("huggingface_agreement")
    assert {"torch", "transformers", "tokenizers", "safetensors"} <= set(record["versions"])
    assert len(record["cases"]) == 2
    for case in record["cases"].values():
        assert case["same_ids"]
        assert case["missing"] == case["unexpected"] == []
        assert len(case["difference"]) == len(record["sentences"])
        # Differences of exactly nothing would mean that a model was compared with itself.
        assert 0 < max(case["difference"]) < 1e-4 < case["largest_state"]


def test_competitors_must_agree(harness):
    right, wrong = np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 4.001])
    harness.agree({"a": {"": [right]}, "b": {"one": [right], "two": [right + 1e-6]}})
    with pytest.raises(SystemExit, match=r"b \(two\) computes something else than a"):
        harness.agree({"a": {"": [right]}, "b": {"one": [right], "two": [wrong]}})
    with pytest.raises(SystemExit, match="computes something else"):
        harness.agree({"a": {"": [right]}, "b": {"": [right[:, None]]}})
    with pytest.raises(SystemExit, match="computes something else"):
        harness.agree({"a": {"": [right]}, "b": {"": [right * np.nan]}})


def test_the_ratio_is_to_the_fastest_competitor_named(harness):
    times = {
        "trivium": {"median": 2.0}, "a": {"median": 3.0}, "b": {"median": 5.0},
        "c": {"median": 1.0},
    }  # fmt: skip
    found = harness.ratio(times, harness.Target(("a", "b"), 1.0, 2.0))
    assert (found["fastest"], found["ratio"]) == ("a", 1.5)


def test_quartiles(harness):
    found = harness.summary([5.0, 1.0, 3.0, 2.0, 4.0], "only")
    assert (found["median"], found["quartiles"]) == (3.0, [2.0, 4.0])
