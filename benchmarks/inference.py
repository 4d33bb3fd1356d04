"""How many inputs a second does each model of the applications answer?

The sizes are those of the trained models, the weights are not: they change no time. A batch is
handed over as NumPy arrays, and the answers come back as such. The detector's boxes have passed
non-maximum suppression, the tagger's labels are the best paths of its conditional random field, and
the translators write as many pieces as their sources have, the likeliest one each time.
"""

import _harness
import jax
import jax.numpy as jnp
import numpy as np
from _harness import Case, Work
from flax import nnx

from trivium.generate import generate
from trivium.models import (
    AttentionalLSTM,
    Bert,
    BertClassifier,
    BertConfig,
    Detector,
    EfficientNet,
    ResNet,
    Seq2Seq,
    Tagger,
    Translation,
    UNet,
    viterbi,
)

MINILM = BertConfig(
    hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
)
# Of every case: the model, the shape of a batch, and the numbers in it: below this if whole.
CASES = {
    "100 garments of 28 x 28, ResNet": ("resnet", (100, 28, 28, 1), None),
    "8 photographs of 224 x 224, EfficientNet": ("efficientnet", (8, 224, 224, 3), None),
    "16 scenes of 96 x 96, Detector": ("detector", (16, 96, 96, 1), None),
    "16 scenes of 96 x 96, UNet": ("unet", (16, 96, 96, 1), None),
    "32 snippets of 32 tokens, BertClassifier": ("bert", (32, 32), 30_000),
    "64 addresses of 8 tokens, Tagger": ("tagger", (64, 8, 17), 20),
    "32 strings of 16 pieces, Seq2Seq": ("seq2seq", (32, 16), 3_000),
    "32 strings of 16 pieces, AttentionalLSTM": ("attentional_lstm", (32, 16), 3_000),
}


def resnet(rngs):
    return ResNet(10, rngs=rngs), lambda model, images: model(images)


def efficientnet(rngs):
    return EfficientNet(rngs=rngs), lambda model, images: model(images)


def detector(rngs):
    return Detector(ResNet(10, rngs=rngs), 10, rngs=rngs), Detector.detect


def unet(rngs):
    model = UNet(ResNet(10, rngs=rngs), 11, scales=2, rngs=rngs)
    return model, lambda model, images: model(images).argmax(axis=-1)


def bert(rngs):
    model = BertClassifier(Bert(MINILM, rngs=rngs), 2, rngs=rngs)
    return model, lambda model, ids: model(ids)


def tagger(rngs):
    model = Tagger(1000, 29, rngs=rngs)
    return model, lambda model, tokens: viterbi(model(tokens))[0]


def seq2seq(rngs):
    sizes = {"width": 128, "heads": 4, "hidden": 256, "depth": 2}
    return Seq2Seq(3000, positions=128, rngs=rngs, **sizes), None


def attentional_lstm(rngs):
    return AttentionalLSTM(3000, width=80, hidden=128, positions=128, rngs=rngs), None


def trivium(name, shape, below):
    """The model by its name, in evaluation mode, compiled but for the translators."""
    random = np.random.default_rng(0)
    inputs = (
        random.random(shape, np.float32)
        if below is None
        else random.integers(4, below, shape, dtype=np.int32)
    )
    model, answer = globals()[name](nnx.Rngs(0))
    model.eval()
    if answer is None:
        sources = inputs.tolist()

        def call():
            prompts = [[2]] * len(sources)
            return np.asarray(generate(Translation(model, sources), prompts, max_new=shape[1]))

        return {"generate": Work([call()], call)}
    graph, state = nnx.split(model)
    compiled = jax.jit(lambda state, inputs: answer(nnx.merge(graph, state), inputs))

    def call():
        return jax.tree.map(np.asarray, compiled(state, jnp.asarray(inputs)))

    return {"compiled": Work([np.float32(leaf) for leaf in jax.tree.leaves(call())], call)}


if __name__ == "__main__":
    _harness.main(
        "inference",
        "how many inputs a second each model answers",
        "one batch, answers as NumPy arrays",
        competitors={_harness.OURS: trivium},
        cases=[Case(name, arguments, ()) for name, arguments in CASES.items()],
        packages=("jax", "jaxlib", "flax"),
        description=__doc__,
        seconds=4,
    )
