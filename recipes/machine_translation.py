"""Interface strings from English into Chinese: `make train-machine_translation`.

An encoder-decoder Transformer and an LSTM with attention learn from the same pairs, in the same
pieces (byte-pair encoding, one vocabulary for both languages). What they are compared with is a
translation memory: the translation of the training text that is most like the one asked for, by
character n-grams. The epoch is chosen on the validation part.

About half an hour on two cores. The same seed on the same machine and versions gives the same
weights; on another machine sums are taken in another order, and BLEU differs by some tenths.
"""

import hashlib
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sacrebleu
from _recipe import CHECKPOINTS, ROOT, count, halve, write_record, write_weights
from flax import nnx
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from trivium.data import ui_strings
from trivium.generate import beam_searches, generate
from trivium.models import AttentionalLSTM, Seq2Seq, Translation
from trivium.train import fit

FOLDER = ROOT / "recipes" / "machine_translation"
SEED, VOCABULARY, POSITIONS = 0, 3000, 128
PAD, UNKNOWN, BEGIN, END = range(4)
BATCH, SMOOTHING, BEAMS, LENGTH_POWER, CHUNK = 64, 0.1, 4, 1.0, 125
SIZES = {
    "transformer": {"width": 128, "heads": 4, "hidden": 256, "depth": 2, "dropout": 0.2},
    "lstm": {"width": 80, "hidden": 128, "dropout": 0.3},
}
EPOCHS = {"transformer": 20, "lstm": 15}
RATES = {"transformer": 3e-3, "lstm": 4e-3}
MODELS = {"transformer": Seq2Seq, "lstm": AttentionalLSTM}
BUDGET = {
    "vocabulary": VOCABULARY,
    "positions": POSITIONS,
    "batch": BATCH,
    "smoothing": SMOOTHING,
    "beams": BEAMS,
    "length_power": LENGTH_POWER,
    "seed": SEED,
    "sizes": SIZES,
    "epochs": EPOCHS,
    "rates": RATES,
}


def pieces(data):
    """The tokenizer, learned from the training part; its file lies beside the weights."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(True)]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<unknown>", "<begin>", "<end>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([*data.train.sources, *data.train.targets], trainer)
    return tokenizer


def encoded(tokenizer, texts):
    """Ids of each text's pieces."""
    return [each.ids for each in tokenizer.encode_batch(list(texts))]


def examples(tokenizer, pairs):
    """Inputs [T_i, 2], source and target beside each other, and labels [N, longest], 0 behind."""
    inputs, answers = [], []
    for source, target in zip(
        encoded(tokenizer, pairs.sources), encoded(tokenizer, pairs.targets), strict=True
    ):
        if max(len(source), len(target) + 1) > POSITIONS:
            continue
        both = np.zeros((max(len(source), len(target) + 1), 2), np.int32)
        both[: len(source), 0] = source
        both[: len(target) + 1, 1] = [BEGIN, *target]
        inputs.append(both)
        answers.append([*target, END])
    labels = np.zeros((len(answers), POSITIONS), np.int32)
    for row, answer in enumerate(answers):
        labels[row, : len(answer)] = answer
    return inputs, labels


class Learner(nnx.Module):
    """A translator as `fit` calls it: with sources and targets in the columns of one array."""

    def __init__(self, translator):
        self.translator = translator

    def __call__(self, both, *, lengths):
        """Map [B, T, 2] to logits [B, T, V]; both columns are padded with 0."""
        sources, targets = both[..., 0], both[..., 1]
        return self.translator(sources, targets, source_lengths=(sources > 0).sum(axis=1))


def losses(mean_length):
    """The loss of each pair: cross-entropy of its pieces, smoothed, over the mean length."""

    def loss(logits, labels):
        labels = labels[:, : logits.shape[1]]
        scores = jax.nn.log_softmax(logits)
        found = jnp.take_along_axis(scores, labels[..., None], axis=-1)[..., 0]
        smooth = (1 - SMOOTHING) * found + SMOOTHING * scores.mean(axis=-1)
        return -jnp.sum(smooth, axis=1, where=labels > 0) / mean_length

    return loss


def right_pieces(logits, labels):
    """The share of pieces that are the likeliest ones, given those before."""
    labels = labels[:, : logits.shape[1]]
    right = (logits.argmax(axis=-1) == labels) & (labels > 0)
    return right.sum(axis=1) / jnp.maximum((labels > 0).sum(axis=1), 1)


def translate(model, tokenizer, texts, beams=1):
    """Translations of texts; sources are cut at the model's positions."""
    sources = [ids[:POSITIONS] for ids in encoded(tokenizer, texts)]
    order = np.argsort([len(each) for each in sources], kind="stable")
    found = [[] for _ in sources]
    for rows in np.split(order, range(CHUNK, len(order), CHUNK)):
        chunk = [sources[row] for row in rows]
        options = {
            "max_new": min(POSITIONS - 1, 2 * max(map(len, chunk)) + 8),
            "stop": [END],
        }
        model_and_sources, prompts = Translation(model, chunk), [[BEGIN]] * len(chunk)
        if beams > 1:
            searched = beam_searches(
                model_and_sources, prompts, beams=beams, length_power=LENGTH_POWER, **options
            )
            written = [text for text, _ in searched]
        else:
            written = generate(model_and_sources, prompts, **options)
        for row, text in zip(rows, written, strict=True):
            found[row] = text
    return tokenizer.decode_batch(found)


def measures(found, targets):
    """BLEU by Chinese characters, chrF, and the share of translations that are the same."""
    return {
        "bleu": sacrebleu.corpus_bleu(found, [targets], tokenize="zh").score,
        "chrf": sacrebleu.corpus_chrf(found, [targets]).score,
        "exact": float(np.mean([a == b for a, b in zip(found, targets, strict=True)])),
    }


def memory(data, part):
    """Translations by the nearest text of the training part."""
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    known = vectors.fit_transform(data.train.sources)
    nearest = (vectors.transform(part.sources) @ known.T).toarray().argmax(axis=1)
    return [data.train.targets[row] for row in nearest]


def train(name, data, tokenizer):
    """Train one translator, translate both held-out parts, write weights and record."""
    model = MODELS[name](
        tokenizer.get_vocab_size(), positions=POSITIONS, rngs=nnx.Rngs(SEED), **SIZES[name]
    )
    learned, held_out = examples(tokenizer, data.train), examples(tokenizer, data.validation)
    steps = EPOCHS[name] * -(-len(learned[0]) // BATCH)
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATES[name], steps // 12, steps)
    processor = time.process_time()
    history = fit(
        Learner(model),
        learned,
        epochs=EPOCHS[name],
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.01)
        ),
        loss=losses(float((learned[1] > 0).sum(axis=1).mean())),
        metric=right_pieces,
        batch_size=BATCH,
        validation=held_out,
        patience=EPOCHS[name],
        monitor="validation_metric",
        seed=SEED,
        buckets=4,
        checkpoint=CHECKPOINTS / "machine_translation" / name,
        checkpoint_every=100,
        progress=False,
    )
    processor = time.process_time() - processor
    model.eval()
    halve(model)
    write_weights(model, FOLDER / f"{name}.safetensors")
    entry = {
        "parameters": count(model),
        "loss": history.loss,
        "validation_loss": history.validation_loss,
        "validation_accuracy": history.validation_metric,
        "best_epoch": history.best_epoch,
        "seconds": {"clock": history.seconds, "processor": processor},
        "greedy": {},
        "beams": {},
    }
    for part in ("validation", "test"):
        texts = getattr(data, part)
        for way, beams in (("greedy", 1), ("beams", BEAMS)):
            found = translate(model, tokenizer, texts.sources, beams)
            entry[way][part] = measures(found, texts.targets)
            print(name, part, way, entry[way][part], flush=True)
    write_record(FOLDER / "record.json", name, entry, BUDGET)


if __name__ == "__main__":
    parts = ui_strings()
    FOLDER.mkdir(parents=True, exist_ok=True)
    bpe = pieces(parts)
    content = bpe.to_str() + "\n"
    (FOLDER / "tokenizer.json").write_text(content, encoding="utf-8")
    BUDGET["files"] = {"tokenizer.json": hashlib.sha256(content.encode()).hexdigest()}
    BUDGET["memory"] = {
        part: measures(memory(parts, getattr(parts, part)), getattr(parts, part).targets)
        for part in ("validation", "test")
    }
    print("memory", json.dumps(BUDGET["memory"]), flush=True)
    for each in sys.argv[1:] or MODELS:
        train(each, parts, bpe)
