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
import optax
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


def stepper(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    loss: Callable[[Any, Any], jax.Array],
    metric: Callable[[Any, Any], jax.Array],
    learning: Callable[[nnx.Module], Any] = nnx.Module.train,
) -> tuple[Any, Callable[..., tuple[Any, Any]]]:
    """What `train` asks for: the state of a training, and a stage of it.

    loss, metric: (the model's outputs, labels) -> one number for each example. learning: puts the
    model in the mode in which it learns.

    Returns the state (weights; batch statistics and the like; optimizer's), and run: (state,
    (learned, held out)), each a pair (inputs, labels) of [steps, batch, ...] -> (state, [mean loss
    while learning, mean metric of what is held out, afterwards]). Pictures in uint8 become floating
    point from 0 to 1.
    """
    learning(model)
    graphdef, weights, rest = nnx.split(model, nnx.Param, ...)

    def rebuilt(weights, rest):
        # A copy: statistics that change inside the gradient must not be those of the outside.
        return nnx.merge(graphdef, weights, jax.tree.map(lambda leaf: leaf, rest))

    def scaled(inputs):
        return inputs.astype(jnp.float32) / 255 if inputs.dtype == jnp.uint8 else inputs

    def mean_loss(weights, rest, inputs, labels):
        model = rebuilt(weights, rest)
        found = loss(model(scaled(inputs)), labels).mean()
        return found, nnx.split(model, nnx.Param, ...)[2]

    def step(state, batch):
        weights, rest, moments = state
        (found, rest), slopes = jax.value_and_grad(mean_loss, has_aux=True)(weights, rest, *batch)
        updates, moments = optimizer.update(slopes, moments, weights)
        return (optax.apply_updates(weights, updates), rest, moments), found

    def judge(state, batch):
        model = rebuilt(*state[:2])
        model.eval()
        return state, metric(model(scaled(batch[0])), batch[1]).mean()

    @jax.jit
    def run(state, data):
        state, losses = jax.lax.scan(step, state, data[0])
        _, judged = jax.lax.scan(judge, state, data[1])
        return state, jnp.stack([losses.mean(), judged.mean()])

    return (weights, rest, optimizer.init(weights)), run


def batched(batch: int, *arrays: Any) -> tuple[Any, ...]:
    """Arrays [N, ...] as [N // batch, batch, ...]."""
    steps = len(arrays[0]) // batch
    return tuple(array[: steps * batch].reshape(steps, batch, *array.shape[1:]) for array in arrays)


def pixels(images: Any) -> Any:
    """Images from 0 to 1 as they were stored, uint8: a quarter of the memory."""
    return np.rint(255 * images).astype(np.uint8)


KEPT = nnx.Any(nnx.Param, nnx.BatchStat)  # what a trained model consists of


def halve(model: nnx.Module, kept: Any = KEPT) -> None:
    """Round the variables that are kept to what float16 holds; they stay float32."""
    state = nnx.state(model, kept)
    nnx.update(model, jax.tree.map(lambda leaf: leaf.astype(jnp.float16).astype(leaf.dtype), state))


def write_weights(model: nnx.Module, path: Path) -> None:
    """The model's parameters and batch statistics as float16, named by where they stand in it."""
    leaves = nnx.to_flat_state(nnx.state(model, KEPT))
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
