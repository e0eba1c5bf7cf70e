"""COCO's detection metrics, by faster-coco-eval (pycocotools' numbers, computed in C++).

Lin et al., "Microsoft COCO: Common Objects in Context" (ECCV 2014, arXiv:1405.0312); https://cocodataset.org.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnas.detection.detections import ImageDetections, coco_results


@dataclass(frozen=True, kw_only=True)
class DetectionScores:
    """COCO's metrics on some images; None where no object is of that kind."""

    mean_precision: float
    """mAP: average precision, averaged over classes and over the IoUs .5, .55 to .95."""
    ap50: float
    """Average precision at IoU .5, averaged over classes."""
    ap75: float
    small: float | None
    """mAP of objects of less than 32x32 pixels of the original image."""
    medium: float | None
    """mAP of objects from 32x32 to 96x96 pixels."""
    large: float | None
    """mAP of objects of more than 96x96 pixels."""
    recall: float
    """Average recall with up to 100 detections for each image."""
    classes: Mapping[str, "ClassScores | None"]
    """Scores of each class; None for one without an object in these images."""
    images: int
    objects: int
    """Number of objects, without crowds."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """The metrics of one class."""

    mean_precision: float
    ap50: float


def coco_scores(truth: Mapping[str, Any], results: Mapping[int, ImageDetections]) -> DetectionScores:
    """Return COCO's metrics.

    Args:
        truth: `images`, `annotations` and `categories` of COCO's format; category ids in the order of the classes.
        results: image id -> detections; an image without an entry has none.

    Raises:
        ImportError: faster-coco-eval is not installed.
        ValueError: the images show no object.
    """
    coco, evaluation = _modules()
    objects = sum(not annotation.get("iscrowd", 0) for annotation in truth["annotations"])
    if not objects:
        raise ValueError(f"COCO's metrics need images with objects, but none of {len(truth['images'])} has one")
    ids = tuple(category["id"] for category in truth["categories"])
    ground = coco({**truth, "annotations": [dict(annotation) for annotation in truth["annotations"]]})
    entries = [entry for image, detections in results.items() for entry in coco_results(image, detections, ids)]
    run = evaluation(ground, ground.loadRes(entries), "bbox")
    run.params.catIds = list(ids)
    run.evaluate()
    run.accumulate()
    run.summarize()
    stats = run.stats_as_dict
    precision = run.eval["precision"]  # (IoUs, recalls, classes, areas, numbers of detections), -1 where undefined
    return DetectionScores(
        mean_precision=stats["AP_all"],
        ap50=stats["AP_50"],
        ap75=stats["AP_75"],
        small=_defined(stats["AP_small"]),
        medium=_defined(stats["AP_medium"]),
        large=_defined(stats["AP_large"]),
        recall=stats["AR_third"],
        classes={c["name"]: _of_class(precision[:, :, k, 0, -1]) for k, c in enumerate(truth["categories"])},
        images=len(truth["images"]),
        objects=objects,
    )


def _of_class(precision: "np.ndarray[Any, np.dtype[np.float64]]") -> ClassScores | None:
    """Return the scores of a class from its precisions (IoUs, recalls)."""
    if not (precision > -1).any():
        return None
    return ClassScores(mean_precision=float(precision.mean()), ap50=float(precision[0].mean()))


def _defined(value: float) -> float | None:
    return None if value < 0 else value


def _modules() -> Sequence[Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise ImportError("COCO's metrics need faster-coco-eval: pip install 'mnas[detect]'") from None
    return COCO, COCOeval_faster
