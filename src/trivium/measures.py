"""Measures that take more than a line of a library's: average precision of boxes."""

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """Average precision of boxes as the COCO benchmark counts it, each from 0 to 1.

    mean: over classes and over ten thresholds of overlap, IoU 0.50 to 0.95, "mAP@[.5:.95]".
    at_50, at_75: over classes, at one threshold. per_class: float64 [K], over thresholds;
    per_class_50 likewise at 0.50; NaN for a class that no picture shows.
    precision: float64 [K, 101], at threshold 0.50 and recall 0, 0.01, ... 1.
    """

    mean: float
    at_50: float
    at_75: float
    per_class: NDArray[np.float64]
    per_class_50: NDArray[np.float64]
    precision: NDArray[np.float64]


def average_precision(
    detections, boxes, classes, *, count: int, most: int = 100
) -> AveragePrecision:
    """Compare detections with the boxes that are there, through pycocotools.

    detections: a triple of boxes [N, D, 4], scores [N, D] and classes [N, D], such as
    `trivium.models.Detections`; scores of 0 are none. boxes [N, M, 4] (y0, x0, y1, x1), classes
    [N, M], -1 for none. count: K, the number of classes. most: of each class on a picture only so
    many detections count, those with the best scores; 100 is the benchmark's, too few where a
    picture shows more objects.

    Raises ValueError for shapes that do not fit, for most below 1, and where there is no box to be
    found.
    Source: Lin et al. 2014, Microsoft COCO.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found_boxes, scores, found_classes = (np.asarray(part) for part in detections)
    boxes, classes = np.asarray(boxes), np.asarray(classes)
    for name, each, kinds in (
        ("detections", found_boxes, found_classes),
        ("boxes and classes", boxes, classes),
    ):
        if each.ndim != 3 or each.shape[-1] != 4 or kinds.shape != each.shape[:2]:
            raise ValueError(
                f"{name} must have boxes [N, M, 4] and classes [N, M], not {each.shape} and "
                f"{kinds.shape}"
            )
    if scores.shape != found_classes.shape or len(found_boxes) != len(boxes):
        raise ValueError(
            f"detections must have scores {found_classes.shape} for {len(boxes)} pictures, not "
            f"{scores.shape}"
        )
    if not (classes >= 0).any():
        raise ValueError("classes must name at least one box")
    if most < 1:
        raise ValueError(f"most must be at least 1, not {most}")

    def collection(boxes, classes, there, scores=None):
        entries: list[dict[str, Any]] = []
        for image, place in zip(*np.nonzero(there), strict=True):
            y0, x0, y1, x1 = map(float, boxes[image, place])
            entry = {
                "id": len(entries) + 1,
                "image_id": int(image),
                "category_id": int(classes[image, place]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (y1 - y0) * (x1 - x0),
                "iscrowd": 0,
            }
            entries.append(entry if scores is None else entry | {"score": scores[image, place]})
        result = COCO()
        result.dataset = {
            "images": [{"id": image} for image in range(len(boxes))],
            "categories": [{"id": kind} for kind in range(count)],
            "annotations": entries,
        }
        result.createIndex()
        return result

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            collection(boxes, classes, classes >= 0),
            collection(found_boxes, found_classes, scores > 0, scores),
            "bbox",
        )
        evaluation.params.maxDets = [most]
        evaluation.evaluate()
        evaluation.accumulate()
    # Axes: thresholds 0.50, 0.55, ... 0.95; recall; classes; areas, of which the first is all; most
    # detections an image, of which there is one. -1 stands for a class without boxes.
    precision = evaluation.eval["precision"][..., 0, -1]
    precision = np.where(precision < 0, np.nan, precision)
    by_class = precision.mean(axis=1)
    return AveragePrecision(
        mean=float(np.nanmean(by_class)),
        at_50=float(np.nanmean(by_class[0])),
        at_75=float(np.nanmean(by_class[5])),
        per_class=by_class.mean(axis=0),
        per_class_50=by_class[0],
        precision=precision[0].T,
    )
