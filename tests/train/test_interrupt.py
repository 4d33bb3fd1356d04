"""Ctrl-C keeps the weights so far, and a checkpoint of them."""

import os
import signal
import threading

import numpy as np
import optax
import pytest
from flax import nnx
from small_models import Linear, leaves, points

from trivium.train import fit, loop

OPTIMIZER = optax.adam(0.05)
RUN = {"optimizer": OPTIMIZER, "batch_size": 8, "progress": False}


@pytest.fixture
def interruptible():
    """Python's own answer to Ctrl-C, also in the background, where a shell switches it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_the_weights_and_the_run_can_go_on(tmp_path, monkeypatch):
    data = points(64)
    read = loop._Run._read

    def interrupt(self, *arguments):
        read(self, *arguments)
        if self.step == 11:  # the third step of the second epoch
            os.kill(os.getpid(), signal.SIGINT)

    model = Linear(rngs=nnx.Rngs(0))
    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_read", interrupt)
        patch.setattr(loop._Run, "_call_steps", lambda self: 1)
        patch.setattr(loop, "_AHEAD", 0)
        with pytest.raises(KeyboardInterrupt):
            fit(model, data, epochs=3, checkpoint=tmp_path, **RUN)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    whole, halfway = Linear(rngs=nnx.Rngs(0)), leaves(model)
    assert all(np.isfinite(leaf).all() for leaf in halfway)
    assert any((a != b).any() for a, b in zip(halfway, leaves(whole), strict=True))
    fit(model, data, epochs=3, checkpoint=tmp_path, **RUN)
    fit(whole, data, epochs=3, **RUN)
    for a, b in zip(leaves(model), leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_trains_outside_the_main_thread():
    model, done = Linear(rngs=nnx.Rngs(0)), []
    thread = threading.Thread(
        target=lambda: done.append(fit(model, points(64), epochs=1, **RUN).epochs)
    )
    thread.start()
    thread.join()
    assert done == [1]
