"""MiniLM fine-tuned on the movie snippets by low-rank adapters: `make train-text_classification`.

Only thin matrices beside the dense layers of the upper blocks and the classifier's head are
trained. The file is small, and what the lowest block makes of a snippet is computed once.

`python recipes/text_classification.py choose` measures the settings of CHOICES for one epoch on a
thousand snippets of the training part; the test part takes no part in it. More blocks did better;
soft targets, the share of positive that a snippet's mean rating speaks for, sigmoid(sharpness x
rating), did not. So the chosen setting adapts one block more still and aims at the classes. Without
`choose` it is trained on all of the training part, and on 100, 300, 1,000 and 3,000 snippets of it
for the learning curve; the record says what the choosing found.

The whole takes a quarter of an hour on two free cores. On another machine sums are taken in another
order, and accuracies differ in the third decimal.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _recipe import CHECKPOINTS, ROOT, halve, write_record
from flax import nnx
from safetensors.numpy import save_file

from trivium import pretrained
from trivium.data import movie_snippets
from trivium.models import BertClassifier, add_low_rank, low_rank_weights, mean_pool
from trivium.train import fit, predict

FOLDER = ROOT / "recipes" / "text_classification"
SEED, LONGEST, BATCH, HELD_OUT = 0, 48, 32, 1000
SETTING = {"rank": 8, "first_block": 1, "rate": 2e-3, "epochs": 3, "sharpness": None}
CHOICES = {
    "ratings": {"epochs": 1, "sharpness": 2.0, "first_block": 3, "rate": 1e-3},
    "classes": {"epochs": 1, "first_block": 3, "rate": 1e-3},
    "one block more": {"epochs": 1, "first_block": 2},
}
SIZES = (100, 300, 1000, 3000)
TRAINED = nnx.Any(nnx.LoRAParam, nnx.PathContains("dense"))
BUDGET = {"longest": LONGEST, "batch": BATCH, "seed": SEED, **SETTING}


def adapted(encoder, setting):
    """A classifier whose encoder has adapters from `first_block` on, and no dropout in it."""
    bert = nnx.clone(encoder.model)
    bert.set_attributes(nnx.Dropout, rate=0.0)
    model = BertClassifier(bert, 2, rngs=nnx.Rngs(SEED))
    add_low_rank(
        model.bert,
        setting["rank"],
        where=lambda path: int(path.split(".")[1]) >= setting["first_block"],
        rngs=nnx.Rngs(SEED + 1),
    )
    return model


def targets(ratings, setting):
    """The share of each class [N, 2], negative and positive, by the mean ratings [N]."""
    if setting["sharpness"] is None:
        positive = (ratings > 0).astype(np.float32)
    else:
        positive = 1 / (1 + np.exp(-setting["sharpness"] * ratings))
    return np.stack([1 - positive, positive], axis=1).astype(np.float32)


def right(logits, shares):
    """Whether the largest logit is that of the larger share."""
    return jnp.argmax(logits, axis=-1) == jnp.argmax(shares, axis=-1)


class Upper(nnx.Module):
    """The part of a classifier that is trained, on what the blocks below hand to it."""

    def __init__(self, model, first):
        self.blocks = nnx.List(list(model.bert.blocks)[first:])
        self.dropout, self.dense = model.dropout, model.dense

    def __call__(self, states, *, lengths):
        """Map states [B, T, D] with real lengths [B] to logits [B, 2]."""
        real = jnp.arange(states.shape[1]) < lengths[:, None]
        for block in self.blocks:
            states = block(states, mask=real[:, None, None, :])
        return self.dense(self.dropout(mean_pool(states, mask=real)))


def below(encoder, ids, first):
    """What the first blocks make of each snippet: arrays [T_i, D]."""
    graph, state = nnx.split(encoder.model)

    @jax.jit
    def states(state, ids, mask):
        model = nnx.merge(graph, state)
        model.eval()
        x, mask = model.embed(ids), mask[:, None, None, :]
        for block in list(model.blocks)[:first]:
            x = block(x, mask=mask)
        return x

    found, order = [None] * len(ids), np.argsort([len(each) for each in ids], kind="stable")
    for begin in range(0, len(ids), 128):
        rows = np.resize(order[begin : begin + 128], 128)
        longest = max(len(ids[row]) for row in rows)
        width = -(-longest // 12) * 12  # four shapes for up to 48 tokens
        padded = np.zeros((128, width), np.int32)
        for i, row in enumerate(rows):
            padded[i, : len(ids[row])] = ids[row]
        lengths = np.array([len(ids[row]) for row in rows])
        x = np.asarray(states(state, padded, np.arange(width) < lengths[:, None]))
        for i, row in enumerate(rows):
            found[row] = x[i, : lengths[i]]
    return found


def trained(encoder, inputs, ratings, setting, name):
    """A classifier trained on these snippets, its upper part, and the record of its training."""
    model = adapted(encoder, setting)
    upper = Upper(model, setting["first_block"])
    # A few snippets are read more often: the steps must be enough for a head to be learned.
    epochs = max(setting["epochs"], -(-40 * BATCH // len(inputs)))
    steps = epochs * -(-len(inputs) // BATCH)
    schedule = optax.warmup_cosine_decay_schedule(0.0, setting["rate"], steps // 10, steps)
    processor = time.process_time()
    history = fit(
        upper,
        (inputs, targets(ratings, setting)),
        epochs=epochs,
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)),
        loss=optax.softmax_cross_entropy,
        metric=right,
        batch_size=BATCH,
        seed=SEED,
        buckets=3,
        trainable=TRAINED,
        checkpoint=CHECKPOINTS / "text_classification" / name,
        checkpoint_every=100,
        progress=False,
    )
    seconds = {"clock": history.seconds, "processor": time.process_time() - processor}
    entry = {"loss": history.loss, "accuracy": history.metric, "seconds": seconds}
    return model, upper, entry


def weights(model):
    """What was trained, in half precision, under the names that it has in the classifier."""
    found = {f"bert.{name}": value for name, value in low_rank_weights(model.bert).items()}
    head = {"dense.kernel": model.dense.kernel[...], "dense.bias": model.dense.bias[...]}
    return {name: np.asarray(value, np.float16) for name, value in (found | head).items()}


def accuracy(model, inputs, labels):
    """The share of snippets whose larger logit is their class's."""
    return float((predict(model, inputs, buckets=3).argmax(axis=1) == labels).mean())


if __name__ == "__main__":
    data, encoder = movie_snippets(), pretrained.load("minilm")
    ratings, labels = data.ratings[data.train_rows], data.train.labels
    read = encoder.encode(data.train.inputs, max_length=LONGEST)
    FOLDER.mkdir(parents=True, exist_ok=True)
    choosing = FOLDER / "choosing.json"
    if sys.argv[1:2] == ["choose"]:
        tried = json.loads(choosing.read_text()) if choosing.is_file() else {}
        for name in sys.argv[2:] or CHOICES:
            setting = SETTING | CHOICES[name]
            learned = below(encoder, read, setting["first_block"])
            _, upper, entry = trained(
                encoder, learned[HELD_OUT:], ratings[HELD_OUT:], setting, f"choose-{name}"
            )
            found = accuracy(upper, learned[:HELD_OUT], labels[:HELD_OUT])
            tried[name] = {"setting": setting, "validation_accuracy": found, **entry}
            choosing.write_text(json.dumps(tried, indent=1) + "\n")
            print(name, setting, found, entry["accuracy"], entry["seconds"], flush=True)
        sys.exit()
    first = SETTING["first_block"]
    learned = below(encoder, read, first)
    ids = encoder.encode(data.test.inputs, max_length=LONGEST)
    asked = below(encoder, ids, first)
    entry = {}
    # The whole part first, and its record at once: the curve can be drawn later.
    for size in (len(learned), *SIZES):
        model, upper, found = trained(
            encoder, learned[:size], ratings[:size], SETTING, f"first-{size}"
        )
        halve(model, TRAINED)
        found["test_accuracy"] = accuracy(upper, asked, data.test.labels)
        print(size, found["test_accuracy"], found["seconds"], flush=True)
        if not entry:
            arrays = weights(model)
            save_file(arrays, FOLDER / "minilm.safetensors")
            # The whole classifier, from the ids on, as whoever loads the weights has it.
            whole = {"test_accuracy": accuracy(model, ids, data.test.labels)}
            entry = found | whole | {
                "parameters": sum(each.size for each in arrays.values()),
                "choosing": json.loads(choosing.read_text()) if choosing.is_file() else {},
                "curve": {},
            }  # fmt: skip
        entry["curve"][str(size)] = found
        write_record(FOLDER / "record.json", "minilm", entry, BUDGET)
