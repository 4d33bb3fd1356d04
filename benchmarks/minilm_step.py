"""How long does a fine-tuning step of MiniLM take, on 32 sentences of 64 tokens?

The network: all-MiniLM-L6-v2 with its pretrained weights, the mean of its last states, and a dense
layer to 2 classes. The step: forward, backward, AdamW on all 22.7 million parameters. float32,
without padding and without dropout, so that all competitors can be held to the same losses.
TensorFlow is missing: neither it nor Keras brings a BERT, and one written here for it would measure
our writing.
"""

from functools import partial

import _harness
import _training
import numpy as np
from _harness import Case, Target

SENTENCES, TOKENS, CLASSES = 32, 64, 2
RATE, DECAY = 2e-5, 0.01


def data():
    """Token ids [BATCHES, B, T], all of whole words, and labels."""
    random = np.random.default_rng(0)
    shape = (_training.BATCHES, SENTENCES, TOKENS)
    ids = random.integers(2000, 30000, size=shape, dtype=np.int32)
    return ids, random.integers(CLASSES, size=shape[:2], dtype=np.int32)


def classifier():
    """The package's model with the pretrained weights; its new layer is the same for all."""
    from flax import nnx

    from trivium import pretrained
    from trivium.models import BertClassifier

    return BertClassifier(pretrained.load("minilm").model, CLASSES, rngs=nnx.Rngs(0))


def adamw():
    """AdamW in optax."""
    import optax

    return optax.adamw(RATE, eps=_training.EPSILON, weight_decay=DECAY)


def trivium():
    """The package's model."""
    return {"BertClassifier": _training.in_nnx(classifier(), data(), adamw())}


def stock():
    """BERT written with the functions of jax.nn."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    model = classifier()
    config = model.bert.config
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads

    def dense(p, x):
        return x @ p["kernel"] + p["bias"]

    def norm(p, x):
        x = jax.nn.standardize(x, axis=-1, epsilon=config.layer_norm_eps)
        return x * p["scale"] + p["offset"]

    def logits(weights, ids):
        e = weights["bert"]["embed"]
        x = norm(e["norm"], e["words"][ids] + e["positions"][: ids.shape[1]] + e["segments"][0])
        for number in range(config.num_hidden_layers):
            p = weights["bert"]["blocks"][number]
            q, k, v = (
                each.reshape(*ids.shape, heads, size)
                for each in jnp.split(dense(p["attend"]["project"], x), 3, axis=-1)
            )
            heard = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
            x = norm(p["norm_attend"], x + dense(p["attend"]["mix"], heard))
            hidden = jax.nn.gelu(dense(p["transform"]["expand"], x), approximate=False)
            x = norm(p["norm_transform"], x + dense(p["transform"]["contract"], hidden))
        return dense(weights["dense"], x.mean(axis=1))

    weights = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return {"jax.nn": _training.in_jax(logits, weights, data(), adamw())}


def pytorch():
    """The BertModel of transformers, with the same weights."""
    import torch
    from transformers import BertConfig, BertModel

    from trivium import pretrained

    ours = classifier()
    sizes = {
        name: getattr(ours.bert.config, name)
        for name in (
            "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
            "intermediate_size", "hidden_act", "max_position_embeddings", "type_vocab_size",
            "layer_norm_eps",
        )
    }  # fmt: skip
    config = BertConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    encoder = {
        name: torch.from_numpy(np.array(value))
        for name, value in pretrained.to_huggingface(ours.bert).items()
    }
    kernel, bias = (
        torch.from_numpy(np.array(p[...])) for p in (ours.dense.kernel, ours.dense.bias)
    )

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = BertModel(config, add_pooling_layer=False)
            self.bert.load_state_dict(encoder)
            self.dense = torch.nn.Linear(config.hidden_size, CLASSES)
            with torch.no_grad():
                self.dense.weight.copy_(kernel.T)
                self.dense.bias.copy_(bias)

        def forward(self, ids):
            return self.dense(self.bert(ids).last_hidden_state.mean(dim=1))

    ids, labels = data()
    ids = [torch.from_numpy(each).long() for each in ids]
    optimizer = partial(torch.optim.AdamW, lr=RATE, eps=_training.EPSILON, weight_decay=DECAY)
    return {
        name: _training.in_torch(Classifier(), (ids, labels), partial(optimizer, **{name: True}))
        for name in ("foreach", "fused")
    }


PEERS = {"PyTorch, transformers": pytorch, "JAX, jax.nn": stock}

if __name__ == "__main__":
    _harness.main(
        "minilm_step",
        "a fine-tuning step of MiniLM, 32 x 64 tokens",
        "one step: forward, backward, AdamW",
        competitors={_harness.OURS: trivium, **PEERS},
        cases=[Case("32 x 64 tokens", (), (Target(tuple(PEERS), 0.75, 1.0),))],
        packages=("jax", "jaxlib", "flax", "optax", "torch", "transformers"),
        description=__doc__,
        seconds=40,
    )
