"""Run as a child: the run of test_checkpoint, told to be slow or to die; or a run on two devices.

python child_process.py checkpoint FOLDER         print each step taken, slowly, until killed
python child_process.py checkpoint FOLDER STEP    die while the checkpoint of STEP is written
python child_process.py mesh                      compare two devices with one; print the result
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def checkpoint(folder, die_at=None):
    from test_checkpoint import train

    from trivium.train import loop
    from trivium.train.checkpoint import Checkpoints

    read, save = loop._Run._read, Checkpoints.save

    def slow(self, *arguments):
        read(self, *arguments)
        print(self.step, flush=True)
        if die_at is None:
            time.sleep(0.05)

    def fatal(self, step, *arguments):
        save(self, step, *arguments)
        if step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    loop._Run._read, Checkpoints.save = slow, fatal
    train(folder)


def mesh():
    import jax
    import numpy as np
    import optax
    from flax import nnx
    from small_models import Dense, leaves, points

    from trivium.train import evaluate, fit, predict

    assert len(jax.devices()) == 2
    # Plain gradients: Adam would blow up the rounding of those that are zero but for it, such as
    # that of a bias before batch normalization.
    data, optimizer = points(50), optax.sgd(0.1)

    def train(**options):
        model = Dense(dropout=0.0, rngs=nnx.Rngs(0))
        history = fit(
            model,
            data,
            epochs=2,
            optimizer=optimizer,
            batch_size=8,
            validation=data,
            progress=False,
            **options,
        )
        return model, history

    two = jax.make_mesh((2,), ("batch",))
    (one, plain), (spread, shared) = train(), train(mesh=two)
    for a, b in zip(leaves(one), leaves(spread), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(plain.loss, shared.loss, rtol=1e-5)
    np.testing.assert_allclose(plain.validation_loss, shared.validation_loss, rtol=1e-4)
    # The weights are back on the model's own device, and it can be used as before.
    assert {leaf.device for leaf in jax.tree.leaves(nnx.state(spread))} == {jax.devices()[0]}
    np.testing.assert_allclose(
        predict(spread, data[0], mesh=two, batch_size=8),
        predict(one, data[0]),
        rtol=1e-4,
        atol=1e-5,
    )
    assert evaluate(spread, data, mesh=two)["metric"] == evaluate(spread, data)["metric"]
    try:
        fit(one, data, epochs=1, optimizer=optimizer, batch_size=7, mesh=two)
    except ValueError as error:
        print(error)


if __name__ == "__main__":
    task, *rest = sys.argv[1:]
    {"checkpoint": lambda: checkpoint(rest[0], *map(int, rest[1:])), "mesh": mesh}[task]()
