"""What recipes share: runs that can be resumed, weights in half precision, the record of a run.

A recipe trains longer than a page may. It leaves, in a folder of its name beside it, the weights
(`RUN.safetensors`, float16) and `record.json`: what was trained, on what, for how long, and how
well it did. A chapter evaluates the weights anew and stops the build where it finds otherwise.
`trivium.pretrained.recipe` reads both.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from trivium.train.checkpoint import Checkpoints

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = ROOT / "_build" / "recipes"


def train(
    run: Callable[..., tuple[Any, Any]],
    state: Any,
    data: Callable[[int], Any],
    *,
    stages: int,
    folder: Path,
    configuration: dict[str, Any],
) -> tuple[Any, list[Any], dict[str, list[float]]]:
    """Train stage by stage; after each a checkpoint is written, from which a later call goes on.

    run: (state, data of a stage) -> (state, scores), compiled beforehand. state: any tree of
    arrays. data: the number of a stage -> its data, the same at every call. folder: where the
    checkpoints lie.
    configuration: a flat dict; a checkpoint of another one is refused with a ValueError.

    Returns the last state, the scores of every stage, and for every stage the seconds on the clock
    and of the processor ("clock", "processor").
    """
    leaves, tree = jax.tree.flatten(state)
    checkpoints = Checkpoints(folder, configuration)
    first, scores, seconds = 0, [], {"clock": [], "processor": []}
    found = checkpoints.load(lambda _: _named(leaves))
    if found is not None:
        arrays, progress = found
        state = jax.tree.unflatten(tree, [arrays[name] for name in _named(leaves)])
        first, scores, seconds = progress["stage"], progress["scores"], progress["seconds"]
    try:
        for stage in range(first, stages):
            batches = data(stage)
            clock, processor = time.perf_counter(), time.process_time()
            state, found_scores = jax.block_until_ready(run(state, batches))
            seconds["clock"].append(time.perf_counter() - clock)
            seconds["processor"].append(time.process_time() - processor)
            scores.append(np.asarray(found_scores, np.float64).tolist())
            print(
                f"stage {stage + 1} of {stages}: {scores[-1]}, {seconds['clock'][-1]:.1f} s",
                flush=True,
            )
            checkpoints.save(
                stage + 1,
                _named(jax.tree.leaves(state)),
                {"stage": stage + 1, "scores": scores, "seconds": seconds},
            )
    finally:
        checkpoints.close()
    return state, scores, seconds


def _named(leaves: list[Any]) -> dict[str, Any]:
    return {f"leaf{number:04d}": leaf for number, leaf in enumerate(leaves)}


def memory(compiled: Any) -> int:
    """Bytes that a compiled function needs beside its arguments and results."""
    return int(compiled.memory_analysis().temp_size_in_bytes)


def halve(model: nnx.Module) -> None:
    """Round the model's parameters to what float16 holds; they stay float32."""
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda leaf: leaf.astype(jnp.float16).astype(leaf.dtype), state))


def write_weights(model: nnx.Module, path: Path) -> None:
    """The model's parameters as float16, named by where they stand in it."""
    leaves = nnx.to_flat_state(nnx.state(model, nnx.Param))
    arrays = {
        ".".join(map(str, place)): np.asarray(leaf[...], np.float16) for place, leaf in leaves
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, path)


def count(model: nnx.Module) -> int:
    """How many numbers the model's parameters are."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def write_record(path: Path, run: str, entry: dict[str, Any], budget: dict[str, Any]) -> None:
    """Put one run's entry into the record at `path`, beside those of the other runs.

    The hash of its weights, which lie beside the record, is added. budget: what all runs of the
    recipe have in common.
    """
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"runs": {}}
    record["budget"] = budget
    weights = (path.parent / f"{run}.safetensors").read_bytes()
    extra = {"sha256": hashlib.sha256(weights).hexdigest(), "machine": machine()}
    record["runs"][run] = entry | extra
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(record), indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """The processor and the versions that a run stands on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        **{name: version(name) for name in ("jax", "flax", "optax", "numpy")},
    }


def _rounded(value: Any) -> Any:
    """Six significant digits are more than any of these numbers has."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
