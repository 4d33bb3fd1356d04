"""A U-Net on composed scenes: `make train-semantic_segmentation`.

It starts where the detector ended, with its backbone and its step up from the coarsest maps;
`_scenes.py` says how it is trained. The same seed on the same machine and versions gives the same
weights; on another machine sums are taken in another order, and the result differs a little.
"""

import numpy as np
import optax
from _recipe import ROOT
from _scenes import SEED, answers, main
from flax import nnx
from sklearn.metrics import jaccard_score

from trivium.models import Detector, ResNet, UNet
from trivium.pretrained import recipe


def begun():
    """A U-Net with what the detector has learned."""
    detector = nnx.eval_shape(
        lambda: Detector(ResNet(10, rngs=nnx.Rngs(SEED)), 10, rngs=nnx.Rngs(SEED))
    )
    detector = recipe("object_detection").restore("detector", detector)
    model = UNet(detector.backbone, 11, rngs=nnx.Rngs(SEED))
    nnx.update(model.ups[0], nnx.state(detector.ups[0]))
    return model


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
        cycles=(10, 32),
        rate=5e-3,
        labels=lambda found: found.masks,
        loss=loss,
        metric=accuracy,
        score=score,
        folder=ROOT / "recipes" / "semantic_segmentation",
    )
