"""Three taggers of US addresses on one split: `make train-sequence_labelling`.

A bidirectional LSTM and a Transformer, both with a conditional random field on top, against a
linear-chain conditional random field on features written by hand (python-crfsuite). The epoch of
each and the two penalties of the baseline are chosen on the validation part.

A few minutes on two cores. The same seed on the same machine and versions gives the same weights;
on another machine sums are taken in another order, and accuracies differ in the third decimal.
"""

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pycrfsuite
from _recipe import CHECKPOINTS, ROOT, count, halve, write_record, write_weights
from flax import nnx
from seqeval.metrics import f1_score

from trivium.data import addresses, begin_inside
from trivium.models import Tagger, TokenEncoder, negative_log_likelihood, viterbi
from trivium.models.tagger import plain
from trivium.train import fit

FOLDER = ROOT / "recipes" / "sequence_labelling"
SEED = 0
EPOCHS, BATCH, DECAY, DROPOUT = 60, 16, 0.05, 0.4
HIDDEN = {"lstm": 128, "transformer": 96}
RATES = {"lstm": 3e-3, "transformer": 1e-3}
BUDGET = {
    "epochs": EPOCHS,
    "batch": BATCH,
    "hidden": HIDDEN,
    "rates": RATES,
    "decay": DECAY,
    "dropout": DROPOUT,
    "seed": SEED,
}


def padded(sequences):
    """Arrays [T_i, ...] as one array [N, longest, ...], zeros behind, and their lengths [N]."""
    lengths = np.array([len(each) for each in sequences], np.int32)
    found = np.zeros((len(sequences), lengths.max(), *sequences[0].shape[1:]), np.int32)
    for row, each in enumerate(sequences):
        found[row, : len(each)] = each
    return found, lengths


def scores(found, labels, names):
    """Token accuracy, and F1 of whole parts of an address, of labels against the true ones."""
    right = [(a == b).mean() for a, b in zip(found, labels, strict=True)]
    sizes = [len(each) for each in labels]
    spans = [
        [begin_inside([names[label] for label in each]) for each in part]
        for part in (labels, found)
    ]
    return {
        "accuracy": float(np.average(right, weights=sizes)),
        "whole_addresses": float(np.mean([each == 1 for each in right])),
        "entity_f1": float(f1_score(*spans)),
    }


def tag(model, encoder, part):
    """The model's labels for each sequence of a part, arrays [T_i]."""
    tokens, lengths = padded([encoder(each) for each in part.tokens])
    model.eval()
    found = np.asarray(nnx.jit(lambda model: model.tag(tokens, lengths=lengths))(model))
    return [row[:length] for row, length in zip(found, lengths, strict=True)]


def right_tokens(found, labels):
    """The share of tokens that the best path labels rightly, for each sequence."""
    best, _ = viterbi(found)
    right = (best == labels[:, : best.shape[1]]) & (best >= 0)
    return right.sum(axis=1) / jnp.maximum(found.lengths, 1)


def neural(body, data, encoder):
    """Train one tagger, choose its epoch on the validation part, write weights and record."""
    model = Tagger(
        encoder.size,
        len(data.labels),
        body=body,
        hidden=HIDDEN[body],
        dropout=DROPOUT,
        rngs=nnx.Rngs(SEED),
    )

    def pair(part):
        return [encoder(each) for each in part.tokens], padded(part.labels)[0]

    width = max(len(each) for part in (data.train, data.validation) for each in part.tokens)
    pairs = [pair(data.train), pair(data.validation)]
    pairs = [(x, np.pad(y, ((0, 0), (0, width - y.shape[1])))) for x, y in pairs]
    steps = EPOCHS * -(-len(data.train.tokens) // BATCH)
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATES[body], 64, steps)
    processor = time.process_time()
    history = fit(
        model,
        pairs[0],
        epochs=EPOCHS,
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=DECAY)
        ),
        loss=negative_log_likelihood,
        metric=right_tokens,
        batch_size=BATCH,
        validation=pairs[1],
        patience=EPOCHS,
        monitor="validation_metric",
        seed=SEED,
        buckets=3,
        checkpoint=CHECKPOINTS / "sequence_labelling" / body,
        progress=False,
    )
    processor = time.process_time() - processor
    halve(model)
    write_weights(model, FOLDER / f"{body}.safetensors")
    entry = {
        "parameters": count(model),
        "loss": history.loss,
        "validation_loss": history.validation_loss,
        "validation_accuracy": history.validation_metric,
        "best_epoch": history.best_epoch,
        "seconds": {"clock": history.seconds, "processor": processor},
        "validation": scores(
            tag(model, encoder, data.validation), data.validation.labels, data.labels
        ),
        "test": scores(tag(model, encoder, data.test), data.test.labels, data.labels),
    }
    write_record(FOLDER / "record.json", body, entry, BUDGET)
    return entry


def features(tokens, place):
    """What the baseline sees of a token: its form and letters, and its neighbors'."""
    found = ["bias"]
    for shift in (-1, 0, 1):
        if not 0 <= place + shift < len(tokens):
            found.append("begin" if shift < 0 else "end")
            continue
        token = tokens[place + shift]
        word = plain(token)
        found += [
            f"{shift}:{name}={value}"
            for name, value in {
                "lower": token.lower(),
                "plain": word,
                "suffix3": word[-3:],
                "suffix2": word[-2:],
                "prefix3": word[:3],
                "upper": token.isupper(),
                "title": token.istitle(),
                "digits": sum(each.isdigit() for each in token),
                "all_digits": token.strip(",.").isdigit(),
                "length": len(word),
                "last": token[-1] if not token[-1].isalnum() else "",
            }.items()
        ]
    return found


def baseline(data):
    """The linear-chain field, its two penalties chosen on the validation part."""
    read = {
        name: [[features(each, i) for i in range(len(each))] for each in getattr(data, name).tokens]
        for name in ("train", "validation", "test")
    }
    clock, tried = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for lasso in (0.0, 0.03, 0.1, 0.3):
            for ridge in (0.001, 0.01, 0.1):
                trainer = pycrfsuite.Trainer(verbose=False)
                for x, y in zip(read["train"], data.train.labels, strict=True):
                    trainer.append(x, [data.labels[label] for label in y])
                trainer.set_params({
                    "c1": lasso, "c2": ridge, "max_iterations": 200,
                    "feature.possible_transitions": True,
                })  # fmt: skip
                path = str(Path(folder) / f"{lasso}-{ridge}")
                trainer.train(path)
                tagger = pycrfsuite.Tagger()
                tagger.open(path)
                found = {
                    name: [
                        np.array([data.labels.index(label) for label in tagger.tag(x)])
                        for x in read[name]
                    ]
                    for name in ("validation", "test")
                }
                validation = scores(found["validation"], data.validation.labels, data.labels)
                tried.append((validation, lasso, ridge, found["test"]))
    validation, lasso, ridge, found = max(tried, key=lambda each: each[0]["accuracy"])
    return {
        "lasso": lasso,
        "ridge": ridge,
        "seconds": time.perf_counter() - clock,
        "validation": validation,
        "test": scores(found, data.test.labels, data.labels),
    }


if __name__ == "__main__":
    parts = addresses()
    FOLDER.mkdir(parents=True, exist_ok=True)
    known = TokenEncoder.of(parts.train.tokens)
    content = json.dumps(known.words) + "\n"
    (FOLDER / "words.json").write_text(content, encoding="utf-8")
    BUDGET["files"] = {"words.json": hashlib.sha256(content.encode()).hexdigest()}
    earlier = FOLDER / "record.json"
    if earlier.is_file():
        BUDGET["crfsuite"] = json.loads(earlier.read_text())["budget"]["crfsuite"]
    for each in sys.argv[1:] or ("crfsuite", "lstm", "transformer"):
        if each == "crfsuite":
            BUDGET["crfsuite"] = found = baseline(parts)
        else:
            found = neural(each, parts, known)
        print(each, json.dumps({k: found[k] for k in ("validation", "test")}), flush=True)
