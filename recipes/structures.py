"""Six character models and three image models under one budget each: `make train-structures`.

Every character model reads the same windows of the King James Bible in the same order, once, with
the same optimizer; every image model sees the same two epochs of Fashion-MNIST. Names on the
command line train those alone: `python recipes/structures.py attention hybrid`.

On two cores a character model takes two to five minutes. The same seed on the same machine and
versions gives the same weights; on another machine sums are taken in another order, and bits per
character differ in the third decimal.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _recipe import CHECKPOINTS, ROOT, count, halve, memory, train, write_record, write_weights
from flax import nnx

from trivium.data import fashion_mnist, king_james
from trivium.models import ConvClassifier, ConvNeXt, ViT, bits_per_symbol, structures
from trivium.train import evaluate, fit

FOLDER = ROOT / "recipes" / "structures"
SEED = 0
WINDOW, BATCH, STEPS, STAGES = 256, 8, 1024, 16
RATE, WARM, BALANCE = 3e-3, 64, 0.01
TEXT_BUDGET = {
    "window": WINDOW,
    "batch": BATCH,
    "steps": STEPS,
    "characters": WINDOW * BATCH * STEPS,
    "rate": RATE,
    "seed": SEED,
}


def windows(ids):
    """Windows of the text in a random order, each with the character after it: [N, WINDOW + 1]."""
    starts = WINDOW * np.arange((len(ids) - 1) // WINDOW)
    order = np.random.default_rng(SEED).permutation(starts)[: STEPS * BATCH]
    return ids[order[:, None] + np.arange(WINDOW + 1)]


TEXT = {
    "transformer": structures.transformer,
    "linear": structures.linear_transformer,
    "lstm": structures.recurrent_model,
    "selective": structures.selective_model,
    "hybrid": structures.hybrid,
    "experts": structures.mixture_of_experts,
}


def text_model(name):
    """Train one character model and write its weights and its entry of the record."""
    bible = king_james()
    model = TEXT[name](len(bible.characters), rngs=nnx.Rngs(SEED))
    model.train()
    graphdef, weights = nnx.split(model)
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, WARM, STEPS)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))

    def loss(weights, batch):
        logits, balance = nnx.merge(graphdef, weights).logits_and_balance(batch[:, :-1])
        found = optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]).mean()
        return found + BALANCE * balance, (found / jnp.log(2.0), balance)

    def step(state, batch):
        weights, moments = state
        (_, scores), slopes = jax.value_and_grad(loss, has_aux=True)(weights, batch)
        updates, moments = optimizer.update(slopes, moments, weights)
        return (optax.apply_updates(weights, updates), moments), scores

    @jax.jit
    def run(state, batches):
        state, scores = jax.lax.scan(step, state, batches)
        return state, jnp.stack(scores).mean(axis=1)

    batches = windows(bible.train).reshape(STAGES, STEPS // STAGES, BATCH, WINDOW + 1)
    state = (weights, optimizer.init(weights))
    compiled = run.lower(state, batches[0]).compile()
    state, scores, seconds = train(
        compiled,
        state,
        lambda stage: batches[stage],
        stages=STAGES,
        folder=CHECKPOINTS / "structures" / name,
        configuration=TEXT_BUDGET | {"model": name},
    )
    nnx.update(model, state[0])
    model.eval()
    halve(model)
    write_weights(model, FOLDER / f"{name}.safetensors")
    entry = {
        "parameters": count(model),
        "memory": memory(compiled),
        "bits": [score[0] for score in scores],
        "balance": [score[1] for score in scores],
        "seconds": seconds,
        "validation_bits": bits_per_symbol(model, bible.validation),
        "test_bits": bits_per_symbol(model, bible.test),
    }
    write_record(FOLDER / "record.json", name, entry, {"text": TEXT_BUDGET, "image": IMAGE_BUDGET})
    print(name, entry["parameters"], "parameters,", f"{entry['test_bits']:.4f} bits on the test")


IMAGE = {
    "vit": lambda rngs: ViT(10, patch=4, width=32, depth=2, heads=2, rngs=rngs),
    "convnext": lambda rngs: ConvNeXt(10, patch=4, widths=(32,), depths=(2,), window=5, rngs=rngs),
    "cnn": lambda rngs: ConvClassifier(10, rngs=rngs),
}
EPOCHS, IMAGES, IMAGE_RATE, HELD_OUT = 2, 64, 2e-3, 5000
IMAGE_BUDGET = {
    "epochs": EPOCHS,
    "batch": IMAGES,
    "images": 60_000 - HELD_OUT,
    "rate": IMAGE_RATE,
    "seed": SEED,
}


def image_model(name):
    """Train one image model and write its weights and its entry of the record."""
    pictures = fashion_mnist()
    inputs, labels = pictures.train
    learned, held_out = (
        (inputs[HELD_OUT:], labels[HELD_OUT:]),
        (inputs[:HELD_OUT], labels[:HELD_OUT]),
    )
    model = IMAGE[name](nnx.Rngs(SEED))
    steps = EPOCHS * -(-IMAGE_BUDGET["images"] // IMAGES)
    schedule = optax.warmup_cosine_decay_schedule(0.0, IMAGE_RATE, WARM, steps)
    processor = time.process_time()
    history = fit(
        model,
        learned,
        epochs=EPOCHS,
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule)),
        batch_size=IMAGES,
        validation=held_out,
        seed=SEED,
        checkpoint=CHECKPOINTS / "structures" / name,
        checkpoint_every=200,
        progress=False,
    )
    processor = time.process_time() - processor
    halve(model)
    write_weights(model, FOLDER / f"{name}.safetensors")
    found = evaluate(model, pictures.test)
    entry = {
        "parameters": count(model),
        "loss": history.loss,
        "validation_accuracy": history.validation_metric,
        "seconds": {"clock": history.seconds, "processor": processor},
        "test_accuracy": found["metric"],
    }
    write_record(FOLDER / "record.json", name, entry, {"text": TEXT_BUDGET, "image": IMAGE_BUDGET})
    print(
        name, entry["parameters"], "parameters,", f"{entry['test_accuracy']:.4f} right on the test"
    )


if __name__ == "__main__":
    for each in sys.argv[1:] or (*TEXT, *IMAGE):
        (text_model if each in TEXT else image_model)(each)
