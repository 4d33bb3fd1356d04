"""Checkpoints of a run through Orbax: written whole or not at all, two kept."""

import zlib
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp


class Checkpoints:
    """The checkpoints of one run, in one folder.

    configuration: a flat dict that must be equal when the run is resumed.
    Orbax writes a checkpoint under another name and renames it when it is complete, so a process
    killed while writing leaves the one before it.
    """

    def __init__(self, folder, configuration):
        self.folder = Path(folder).absolute()
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"checkpoint must name a folder, got the file {folder}")
        self.configuration = configuration
        self.manager = ocp.CheckpointManager(
            self.folder, options=ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        )

    def save(self, step, arrays, progress):
        """Write arrays {name: array} and progress (JSON) as the checkpoint of a step."""
        if step == self.manager.latest_step():  # an interrupt before the first step of a run
            return
        self.manager.save(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave({k: to_host(a) for k, a in arrays.items()}),
                progress=ocp.args.JsonSave({"run": self.configuration, **progress}),
            ),
        )

    def load(self, templates):
        """The newest checkpoint as (arrays, progress), or None where there is none.

        templates: from progress to {name: array}, the shapes and types to expect.
        Raises ValueError that names what differs from the run that wrote it.
        """
        step = self.manager.latest_step()
        if step is None:
            return None
        saved = self.manager.restore(
            step, args=ocp.args.Composite(progress=ocp.args.JsonRestore())
        ).progress
        self._compare(saved["run"])
        arrays = self.manager.restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(
                    {k: to_host(a) for k, a in templates(saved).items()}
                )
            ),
        ).arrays
        return arrays, saved

    def _compare(self, saved):
        for name in {**self.configuration, **saved}:
            before, now = saved.get(name), self.configuration.get(name)
            if before != now:
                raise ValueError(
                    f"the checkpoint in {self.folder} is of a run with {name} {before}, this run "
                    f"has {now}: go on with the same, or choose another folder"
                )

    def close(self):
        """Wait until what is being written is complete."""
        self.manager.wait_until_finished()
        self.manager.close()


def to_host(array) -> np.ndarray:
    """A copy on the host; a random key as the numbers behind it."""
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    # A copy, not a view: the device's buffer is handed to the next step while Orbax writes.
    return np.array(array)


def fingerprint(tree) -> int:
    """A checksum (CRC-32) of a tree of arrays, which tells one data set from another."""
    value = 0
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(leaf)
        value = zlib.crc32(f"{array.dtype}{array.shape}".encode(), value)
        value = zlib.crc32(array.tobytes(), value)
    return value
