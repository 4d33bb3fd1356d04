"""A detector on composed scenes: `make train-object_detection`.

It starts from the backbone that `image_classification.py` trained. Every stage sees new scenes,
composed of the training pictures but the first 5,000; those make the scenes that say how well it
goes. The same seed on the same machine and versions gives the same weights; on another machine sums
are taken in another order, and the result differs a little.
"""

import jax
import numpy as np
import optax
from _recipe import (
    CHECKPOINTS,
    ROOT,
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

from trivium.data import Examples, compose, fashion_mnist, scenes
from trivium.measures import average_precision
from trivium.models import Detections, Detector, ResNet, detection_loss
from trivium.pretrained import recipe

FOLDER = ROOT / "recipes" / "object_detection"
SEED, HELD_OUT = 0, 5_000
STAGES, SCENES, BATCH, RATE, DECAY = 10, 1_600, 16, 2e-3, 0.02
BUDGET = {
    "stages": STAGES,
    "scenes": SCENES,
    "batch": BATCH,
    "rate": RATE,
    "decay": DECAY,
    "seed": SEED,
}


def score(model, found):
    """Average precision on a set of scenes."""
    graphdef, state = nnx.split(model)
    detect = jax.jit(lambda images: nnx.merge(graphdef, state).detect(images))
    parts = [detect(found.images[start : start + 100]) for start in range(0, len(found), 100)]
    detections = Detections(*(np.concatenate(each) for each in zip(*parts, strict=True)))
    precision = average_precision(detections, found.boxes, found.classes, count=model.classes)
    return {
        "mean": precision.mean,
        "at_50": precision.at_50,
        "at_75": precision.at_75,
        "per_class": precision.per_class.tolist(),
    }


def main(folder=FOLDER, stages=STAGES):
    """Train, write weights and record."""
    model = Detector(
        recipe("image_classification").restore("resnet", ResNet(10, rngs=nnx.Rngs(SEED))),
        10,
        rngs=nnx.Rngs(SEED),
    )
    inputs, labels = fashion_mnist().train
    learned = Examples(inputs[HELD_OUT:], labels[HELD_OUT:])
    held_out = Examples(inputs[:HELD_OUT], labels[:HELD_OUT])
    validation = compose(held_out, 1_000, seed=0)

    def batches(found):
        return batched(BATCH, pixels(found.images), found.labels())

    judged = batches(compose(held_out, 320, seed=0))

    def data(stage):
        return batches(compose(learned, SCENES, seed=stage)), judged

    steps = stages * (SCENES // BATCH)
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, steps // 20, steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(5.0), optax.adamw(schedule, weight_decay=DECAY)
    )
    state, run = stepper(model, optimizer, detection_loss, detection_loss)
    state, scores, seconds = train(
        run.lower(state, data(0)).compile(),
        state,
        data,
        stages=stages,
        folder=CHECKPOINTS / folder.name,
        configuration=BUDGET | {"stages": stages},
    )
    nnx.update(model, *state[:2])
    model.eval()
    halve(model)
    write_weights(model, folder / "detector.safetensors")
    entry = {
        "parameters": count(model),
        "loss": [each[0] for each in scores],
        "validation_loss": [each[1] for each in scores],
        "seconds": seconds,
        "validation": score(model, validation),
        "test": score(model, scenes(count_train=0).test),
    }
    write_record(folder / "record.json", "detector", entry, BUDGET)
    print(entry["parameters"], "parameters,", entry["validation"], entry["test"])


if __name__ == "__main__":
    main()
