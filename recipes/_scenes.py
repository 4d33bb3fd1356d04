"""What the recipes on composed scenes share: one backbone, one kind of data, one training.

The backbone is the one that `image_classification.py` trained; it knows the garments, so its steps
are shorter than those of what is new. Every stage sees new scenes, half of them mirrored, composed
of the training pictures but the first 5,000; those make the scenes that say how well it goes.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
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
from trivium.data.scenes import SIDE
from trivium.models import ResNet
from trivium.pretrained import recipe

SEED, HELD_OUT = 0, 5_000
SCENES, DECAY, JUDGED = 1_600, 0.02, 320


def backbone() -> ResNet:
    """The classifier's network with its weights."""
    model = nnx.eval_shape(lambda: ResNet(10, rngs=nnx.Rngs(SEED)))
    return recipe("image_classification").restore("resnet", model)


def crowded(found: SceneSet, count: int, random: np.random.Generator) -> SceneSet:
    """The `count` scenes that have the most garments, in random order."""
    rows = random.permutation(np.argsort(-found.counts, kind="stable")[:count])
    return SceneSet(*(getattr(found, field.name)[rows] for field in fields(found)))


def mirrored(found: SceneSet, random: np.random.Generator) -> SceneSet:
    """The scenes, half of them at random mirrored."""
    rows = random.random(len(found)) < 0.5
    images, masks, boxes = found.images.copy(), found.masks.copy(), found.boxes.copy()
    images[rows], masks[rows] = images[rows, :, ::-1], masks[rows, :, ::-1]
    there = rows[:, np.newaxis] & (found.classes >= 0)
    boxes[there, 1], boxes[there, 3] = SIDE - boxes[there, 3], SIDE - boxes[there, 1]
    return replace(found, images=images, masks=masks, boxes=boxes)


def parts(weights: Any) -> Any:
    """What of the weights is the backbone's, and what is new."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "backbone" if path[0].key == "backbone" else "new", weights
    )


def answers(model: nnx.Module, found: SceneSet, answer: Callable[..., Any]) -> Iterator[Any]:
    """What answer(model, images) says of the scenes, a hundred at a time."""
    graphdef, state = nnx.split(model)
    compiled = jax.jit(lambda images: answer(nnx.merge(graphdef, state), images))
    return (compiled(found.images[start : start + 100]) for start in range(0, len(found), 100))


def main(
    name: str,
    model: nnx.Module,
    *,
    cycles: tuple[int, ...],
    rate: float,
    slower: float,
    batch: int,
    composed: int = SCENES,
    learning: Callable[[nnx.Module], Any] = nnx.Module.train,
    labels: Callable[[SceneSet], Any],
    loss: Callable[..., jax.Array],
    metric: Callable[..., jax.Array],
    score: Callable[[nnx.Module, SceneSet], dict[str, Any]],
    folder: Path,
) -> None:
    """Train a model, write weights and record under a name.

    cycles: stages of each fall of the rate. The first begins with a rise; those behind it begin at
    half of the rate, a restart in small (Loshchilov and Hutter 2017). rate: of what is new, and
    slower: the backbone's as a share of it. composed: scenes of a stage, of which the SCENES with
    the most garments are learned from. learning: puts the model in the mode in which it learns.
    labels: of a set of scenes. loss, metric: (outputs, labels) -> one number an image. score: the
    measures of the trained model on a set of scenes.
    """
    inputs, classes = fashion_mnist().train
    learned = Examples(inputs[HELD_OUT:], classes[HELD_OUT:])
    held_out = Examples(inputs[:HELD_OUT], classes[:HELD_OUT])

    def batches(found):
        return batched(batch, pixels(found.images), labels(found))

    judged = batches(compose(held_out, JUDGED, seed=0))

    def data(stage):
        random = np.random.default_rng([SEED, stage])
        found = compose(learned, composed, seed=stage)
        if composed > SCENES:
            found = crowded(found, SCENES, random)
        return batches(mirrored(found, random)), judged

    lengths = [stages * (SCENES // batch) for stages in cycles]

    def moves(top: float) -> optax.GradientTransformation:
        first, *later = lengths
        falls = [optax.warmup_cosine_decay_schedule(0.0, top, first // 20, first)]
        falls += [optax.cosine_decay_schedule(top / 2, length) for length in later]
        schedule = optax.join_schedules(falls, np.cumsum(lengths)[:-1].tolist())
        return optax.adamw(schedule, weight_decay=DECAY)

    optimizer = optax.chain(
        optax.clip_by_global_norm(5.0),
        optax.partition({"backbone": moves(slower * rate), "new": moves(rate)}, parts),
    )
    budget = {
        "cycles": list(cycles),
        "scenes": SCENES,
        "composed": composed,
        "batch": batch,
        "rate": rate,
        "slower": slower,
        "decay": DECAY,
        "seed": SEED,
    }
    state, run = stepper(model, optimizer, loss, metric, learning)
    state, scores, seconds = train(
        run.lower(state, data(0)).compile(),
        state,
        data,
        stages=sum(cycles),
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
