"""A U-Net on composed scenes: `make train-semantic_segmentation`.

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
from sklearn.metrics import jaccard_score

from trivium.data import Examples, compose, fashion_mnist, scenes
from trivium.models import ResNet, UNet
from trivium.pretrained import recipe

FOLDER = ROOT / "recipes" / "semantic_segmentation"
SEED, HELD_OUT = 0, 5_000
STAGES, SCENES, BATCH, RATE, DECAY = 8, 1_600, 16, 2e-3, 0.02
BUDGET = {
    "stages": STAGES,
    "scenes": SCENES,
    "batch": BATCH,
    "rate": RATE,
    "decay": DECAY,
    "seed": SEED,
}


def loss(logits, masks):
    """Cross-entropy, the mean over each image's pixels."""
    pixels = optax.softmax_cross_entropy_with_integer_labels(logits, masks.astype(np.int32))
    return pixels.mean(axis=(1, 2))


def accuracy(logits, masks):
    """The share of each image's pixels that have the right class."""
    return (logits.argmax(axis=-1) == masks).mean(axis=(1, 2))


def score(model, found):
    """IoU of every class on a set of scenes, over all their pixels together."""
    graphdef, state = nnx.split(model)
    segment = jax.jit(lambda images: nnx.merge(graphdef, state)(images).argmax(axis=-1))
    parts = [segment(found.images[start : start + 100]) for start in range(0, len(found), 100)]
    masks = np.concatenate(parts)
    per_class = jaccard_score(
        found.masks.ravel(), masks.ravel(), labels=np.arange(11), average=None
    )
    return {
        "mean": float(per_class.mean()),
        "per_class": per_class.tolist(),
        "pixels": float((masks == found.masks).mean()),
    }


def main(folder=FOLDER, stages=STAGES):
    """Train, write weights and record."""
    model = UNet(
        recipe("image_classification").restore("resnet", ResNet(10, rngs=nnx.Rngs(SEED))),
        11,
        rngs=nnx.Rngs(SEED),
    )
    inputs, labels = fashion_mnist().train
    learned = Examples(inputs[HELD_OUT:], labels[HELD_OUT:])
    held_out = Examples(inputs[:HELD_OUT], labels[:HELD_OUT])
    validation = compose(held_out, 1_000, seed=0)

    def batches(found):
        return batched(BATCH, pixels(found.images), found.masks)

    judged = batches(compose(held_out, 320, seed=0))

    def data(stage):
        return batches(compose(learned, SCENES, seed=stage)), judged

    steps = stages * (SCENES // BATCH)
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, steps // 20, steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(5.0), optax.adamw(schedule, weight_decay=DECAY)
    )
    state, run = stepper(model, optimizer, loss, accuracy)
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
    write_weights(model, folder / "unet.safetensors")
    entry = {
        "parameters": count(model),
        "loss": [each[0] for each in scores],
        "validation_accuracy": [each[1] for each in scores],
        "seconds": seconds,
        "validation": score(model, validation),
        "test": score(model, scenes(count_train=0).test),
    }
    write_record(folder / "record.json", "unet", entry, BUDGET)
    print(
        entry["parameters"],
        "parameters, mean IoU on the test",
        f"{entry['test']['mean']:.4f}",
    )


if __name__ == "__main__":
    main()
