"""A run that is killed and resumed ends as one that was never interrupted, bit for bit."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import optax
import pytest
from flax import nnx
from small_models import Dense, Linear, leaves, points

from trivium.train import fit

CHILD = Path(__file__).with_name("child_process.py")
OPTIMIZER = optax.adam(0.3)


def train(folder=None, *, epochs=4, seed=0, start=0, **options):
    """Dropout, batch statistics, Adam, early stopping with a patience that runs out, 6 steps."""
    model = Dense(rngs=nnx.Rngs(start))
    every = {} if folder is None else {"checkpoint": folder, "checkpoint_every": 4}
    history = fit(
        model,
        points(45),
        **{
            "epochs": epochs,
            "optimizer": OPTIMIZER,
            "batch_size": 8,
            "validation": points(20, seed=1),
            "patience": 1,
            "seed": seed,
            "progress": False,
            **every,
            **options,
        },
    )
    return model, history


def record(history):
    """What must be equal: all but the clock's part."""
    clock = ("seconds", "examples_per_second", "compile_seconds")
    return {name: value for name, value in history.to_dict().items() if name not in clock}


def assert_same(a, b):
    for x, y in zip(leaves(a[0]), leaves(b[0]), strict=True):
        np.testing.assert_array_equal(x, y)
    assert record(a[1]) == record(b[1])


@pytest.fixture(scope="module")
def whole():
    return train()


def test_kill_and_resume(whole, tmp_path):
    """Killed from outside in the middle of an epoch, then again while a checkpoint is written."""
    folder = tmp_path / "run"
    child = subprocess.Popen(
        [sys.executable, CHILD, "checkpoint", folder], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 9:  # of 6 steps an epoch: inside the second, past the checkpoint of step 8
            child.kill()
            break
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    saved = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    assert saved
    assert saved[-1] <= 12

    died = subprocess.run(
        [sys.executable, CHILD, "checkpoint", folder, "12"], stdout=subprocess.PIPE, check=False
    )
    assert died.returncode == -signal.SIGKILL

    # Another start for the weights: all that counts must come from the checkpoint.
    resumed = train(folder, start=5)
    assert_same(resumed, whole)
    left = [path.name for path in folder.iterdir()]
    assert len(left) == 2, f"two checkpoints are kept, and nothing half-written: {left}"


def test_a_finished_run_is_not_run_again(whole, tmp_path):
    assert_same(train(tmp_path), whole)
    assert_same(train(tmp_path, start=3), whole)


def test_more_epochs_go_on(tmp_path):
    plain = {"patience": None, "validation": None}
    train(tmp_path, epochs=1, **plain)
    longer = train(tmp_path, epochs=2, **plain)
    assert_same(longer, train(epochs=2, **plain))
    with pytest.raises(ValueError, match=r"epochs=1, but the checkpoint in .* holds 2"):
        train(tmp_path, epochs=1, **plain)


def test_a_different_run_is_refused(tmp_path):
    plain = {"patience": None, "validation": None, "epochs": 1}
    train(tmp_path, **plain)

    def resume(match, model=None, data=None, **options):
        start = model or Dense(rngs=nnx.Rngs(0))
        before = leaves(start)
        with pytest.raises(ValueError, match=match):
            fit(
                start,
                data or points(45),
                **{
                    "epochs": 1,
                    "optimizer": OPTIMIZER,
                    "batch_size": 8,
                    "progress": False,
                    "checkpoint": tmp_path,
                    **options,
                },
            )
        for a, b in zip(leaves(start), before, strict=True):
            np.testing.assert_array_equal(a, b)

    resume("number of examples 45, this run has 44", data=points(44))
    resume("data checksum", data=points(45, seed=9))
    resume("batch_size 8, this run has 9", batch_size=9)
    resume("seed 0, this run has 1", seed=1)
    resume("optimizer", optimizer=optax.sgd(0.1))
    resume(r"with trainable\.dense\.bias", model=Linear(rngs=nnx.Rngs(0)))


def test_a_file_is_no_folder(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("x")
    with pytest.raises(ValueError, match=r"checkpoint must name a folder, got the file"):
        train(file)


def test_history_survives_json(whole):
    assert json.loads(json.dumps(whole[1].to_dict())) == whole[1].to_dict()
