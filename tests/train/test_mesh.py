"""A batch spread over two devices trains as on one."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import optax
import pytest
from flax import nnx
from small_models import Linear, points

from trivium.train import fit


def test_two_devices_train_as_one():
    child = subprocess.run(
        [sys.executable, Path(__file__).with_name("child_process.py"), "mesh"],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert "batch_size must be a multiple of the 2 devices" in child.stdout


def test_a_mesh_is_a_mesh():
    with pytest.raises(TypeError, match=r"mesh must be a jax\.sharding\.Mesh, got list"):
        fit(
            Linear(rngs=nnx.Rngs(0)),
            points(8),
            epochs=1,
            optimizer=optax.sgd(0.1),
            mesh=jax.devices(),
        )
