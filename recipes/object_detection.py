"""A detector on composed scenes: `make train-object_detection`.

It starts from the classifier's backbone; `_scenes.py` says how it is trained. The same seed on the
same machine and versions gives the same weights; on another machine sums are taken in another
order, and the result differs a little.
"""

import numpy as np
from _recipe import ROOT
from _scenes import SEED, answers, backbone, main
from flax import nnx

from trivium.data import SceneSet
from trivium.measures import average_precision
from trivium.models import Detections, Detector, detection_loss


def score(model, found):
    """Average precision on a set of scenes."""
    parts = zip(*answers(model, found, Detector.detect), strict=True)
    detections = Detections(*(np.concatenate(each) for each in parts))
    precision = average_precision(detections, found.boxes, found.classes, count=model.classes)
    return {
        "mean": precision.mean,
        "at_50": precision.at_50,
        "at_75": precision.at_75,
        "per_class": precision.per_class.tolist(),
    }


if __name__ == "__main__":
    main(
        "detector",
        Detector(backbone(), 10, rngs=nnx.Rngs(SEED)),
        cycles=(32, 12),
        rate=2e-3,
        slower=0.3,
        batch=16,
        labels=SceneSet.labels,
        loss=detection_loss,
        metric=detection_loss,
        score=score,
        folder=ROOT / "recipes" / "object_detection",
    )
