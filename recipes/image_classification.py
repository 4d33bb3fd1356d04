"""A small residual network on Fashion-MNIST: `make train-image_classification`.

Trained on the training pictures but the first 5,000, which say how well it goes; each epoch sees
them shifted and mirrored anew. An epoch takes about two minutes of processor time, the whole half
an hour on two cores. The same seed on the same machine and versions gives the same weights; on
another machine sums are taken in another order, and the accuracy differs a little.
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

from trivium.data import fashion_mnist
from trivium.models import ResNet
from trivium.train import accuracy, evaluate

FOLDER = ROOT / "recipes" / "image_classification"
SEED, HELD_OUT = 0, 5_000
EPOCHS, BATCH, RATE, DECAY, SMOOTHING, SHIFT = 30, 100, 0.1, 5e-4, 0.05, 2
BUDGET = {
    "epochs": EPOCHS,
    "batch": BATCH,
    "images": 60_000 - HELD_OUT,
    "rate": RATE,
    "decay": DECAY,
    "smoothing": SMOOTHING,
    "shift": SHIFT,
    "seed": SEED,
}


def vary(images, random):
    """Mirror half of the images [N, 28, 28], and shift each by up to SHIFT pixels, at random."""
    count, side = images.shape[:2]
    y, x = random.integers(-SHIFT, SHIFT + 1, (2, count, 1)) + np.arange(side) + SHIFT
    x = np.where(random.random((count, 1)) < 0.5, x[:, ::-1], x)
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    return padded[np.arange(count)[:, None, None], y[:, :, None], x[:, None, :]]


def loss(logits, labels):
    """Cross-entropy against labels that leave a little to the other classes."""
    wanted = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), SMOOTHING)
    return optax.softmax_cross_entropy(logits, wanted)


def filters(weights):
    """Which weights decay: all but scales, offsets and biases."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, weights)


def main():
    """Train, write weights and record."""
    pictures = fashion_mnist()
    inputs, labels = pictures.train
    held_out = (inputs[:HELD_OUT], labels[:HELD_OUT])
    learned, answers = pixels(inputs[HELD_OUT:, ..., 0]), labels[HELD_OUT:]
    model = ResNet(10, rngs=nnx.Rngs(SEED))
    judged = batched(BATCH, pixels(held_out[0]), held_out[1])

    def data(epoch):
        random = np.random.default_rng([SEED, epoch])
        rows = random.permutation(len(learned))
        varied = vary(learned[rows], random)[..., np.newaxis]
        return batched(BATCH, varied, answers[rows]), judged

    steps = len(learned) // BATCH
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, 2 * steps, EPOCHS * steps)
    optimizer = optax.chain(
        optax.add_decayed_weights(DECAY, mask=filters),
        optax.sgd(schedule, momentum=0.9, nesterov=True),
    )
    state, run = stepper(model, optimizer, loss, accuracy)
    state, scores, seconds = train(
        run.lower(state, data(0)).compile(),
        state,
        data,
        stages=EPOCHS,
        folder=CHECKPOINTS / FOLDER.name,
        configuration=BUDGET,
    )
    nnx.update(model, *state[:2])
    model.eval()
    halve(model)
    write_weights(model, FOLDER / "resnet.safetensors")
    entry = {
        "parameters": count(model),
        "loss": [score[0] for score in scores],
        "validation_accuracy": [score[1] for score in scores],
        "seconds": seconds,
        "validation": evaluate(model, held_out),
        "test": evaluate(model, pictures.test),
    }
    write_record(FOLDER / "record.json", "resnet", entry, BUDGET)
    print(entry["parameters"], "parameters,", f"{entry['test']['metric']:.4f} right on the test")


if __name__ == "__main__":
    main()
