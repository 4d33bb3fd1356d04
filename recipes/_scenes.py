"""What the recipes on composed scenes share: one backbone, one kind of data, one training.

The backbone is the one that `image_classification.py` trained. Every stage sees new scenes,
composed of the training pictures but the first 5,000; those make the scenes that say how well it
goes.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from _recipe import (
    CHECKPOINTS,
    batched,
    count,
    halve,
    pixels,
    stepper,
    train,
    write_record,
    write_weights,
)
from flax import nnx

from trivium.data import Examples, SceneSet, compose, fashion_mnist, scenes
from trivium.models import ResNet
from trivium.pretrained import recipe

SEED, HELD_OUT = 0, 5_000
SCENES, BATCH, RATE, DECAY = 1_600, 16, 2e-3, 0.02


def backbone() -> ResNet:
    """The classifier's network with its weights."""
    model = nnx.eval_shape(lambda: ResNet(10, rngs=nnx.Rngs(SEED)))
    return recipe("image_classification").restore("resnet", model)


def answers(model: nnx.Module, found: SceneSet, answer: Callable[..., Any]) -> Iterator[Any]:
    """What answer(model, images) says of the scenes, a hundred at a time."""
    graphdef, state = nnx.split(model)
    compiled = jax.jit(lambda images: answer(nnx.merge(graphdef, state), images))
    return (compiled(found.images[start : start + 100]) for start in range(0, len(found), 100))


def main(
    name: str,
    model: nnx.Module,
    *,
    stages: int,
    labels: Callable[[SceneSet], Any],
    loss: Callable[..., jax.Array],
    metric: Callable[..., jax.Array],
    score: Callable[[nnx.Module, SceneSet], dict[str, Any]],
    folder: Path,
) -> None:
    """Train a model, write weights and record under a name.

    labels: of a set of scenes. loss, metric: (outputs, labels) -> one number an image. score: the
    measures of the trained model on a set of scenes.
    """
    inputs, classes = fashion_mnist().train
    learned = Examples(inputs[HELD_OUT:], classes[HELD_OUT:])
    held_out = Examples(inputs[:HELD_OUT], classes[:HELD_OUT])

    def batches(found):
        return batched(BATCH, pixels(found.images), labels(found))

    judged = batches(compose(held_out, 20 * BATCH, seed=0))

    def data(stage):
        return batches(compose(learned, SCENES, seed=stage)), judged

    steps = stages * (SCENES // BATCH)
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, steps // 20, steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(5.0), optax.adamw(schedule, weight_decay=DECAY)
    )
    budget = {
        "stages": stages,
        "scenes": SCENES,
        "batch": BATCH,
        "rate": RATE,
        "decay": DECAY,
        "seed": SEED,
    }
    state, run = stepper(model, optimizer, loss, metric)
    state, scores, seconds = train(
        run.lower(state, data(0)).compile(),
        state,
        data,
        stages=stages,
        folder=CHECKPOINTS / folder.name,
        configuration=budget,
    )
    nnx.update(model, *state[:2])
    model.eval()
    halve(model)
    write_weights(model, folder / f"{name}.safetensors")
    losses, judgments = np.transpose(scores).tolist()
    entry = {
        "parameters": count(model),
        "loss": losses,
        "validation_metric": judgments,
        "seconds": seconds,
        "validation": score(model, compose(held_out, 1_000, seed=0)),
        "test": score(model, scenes(count_train=0).test),
    }
    write_record(folder / "record.json", name, entry, budget)
    print(entry["parameters"], "parameters,", entry["validation"], entry["test"])
