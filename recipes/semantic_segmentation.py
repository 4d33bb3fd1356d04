"""A U-Net on composed scenes: `make train-semantic_segmentation`.

It starts from the classifier's backbone, which looks at every scene twice: as it is, and at half
the size. `_scenes.py` says how it is trained. The same seed on the same machine and versions gives
the same weights; on another machine sums are taken in another order, and the result differs a
little.
"""

import numpy as np
import optax
from _recipe import ROOT
from _scenes import SCENES, SEED, answers, backbone, main
from flax import nnx
from sklearn.metrics import jaccard_score

from trivium.models import UNet


def begun():
    """A U-Net that sees every scene at two sizes with what the classifier has learned."""
    return UNet(backbone(), 11, scales=2, rngs=nnx.Rngs(SEED))


def learning(model):
    """The backbone's normalization stays: two sizes have no statistics in common."""
    model.train()
    model.backbone.eval()


def loss(logits, masks):
    """Cross-entropy, the mean over each image's pixels."""
    pixels = optax.softmax_cross_entropy_with_integer_labels(logits, masks.astype(np.int32))
    return pixels.mean(axis=(1, 2))


def accuracy(logits, masks):
    """The share of each image's pixels that have the right class."""
    return (logits.argmax(axis=-1) == masks).mean(axis=(1, 2))


def score(model, found):
    """IoU of every class on a set of scenes, over all their pixels together."""
    parts = answers(model, found, lambda model, images: model(images).argmax(axis=-1))
    masks = np.concatenate(list(parts))
    per_class = jaccard_score(
        found.masks.ravel(), masks.ravel(), labels=np.arange(11), average=None
    )
    return {
        "mean": float(per_class.mean()),
        "per_class": per_class.tolist(),
        "pixels": float((masks == found.masks).mean()),
    }


if __name__ == "__main__":
    main(
        "unet",
        begun(),
        cycles=(52,),
        rate=5e-3,
        slower=0.1,
        batch=8,
        composed=2 * SCENES,
        learning=learning,
        labels=lambda found: found.masks,
        loss=loss,
        metric=accuracy,
        score=score,
        folder=ROOT / "recipes" / "semantic_segmentation",
    )
