"""Score a detector on labelled images: its detections, and COCO's metrics of them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mnas.data.detection.record import BoxedImage
from mnas.detection.coco import DetectionScores, coco_scores
from mnas.detection.detections import ImageDetections
from mnas.detection.exported import Shares

Detect = Callable[[npt.NDArray[np.uint8]], Sequence[Shares]]
"""Images (B, S, S, 3) at the detector's size -> detections of each."""

SCORE_THRESHOLD = 0.001
"""Lowest score that counts in COCO's metrics, which need all of a class's ranking (torchvision's value)."""


def coco_truth(
    images: Sequence[BoxedImage], classes: Sequence[str], category_ids: Sequence[int]
) -> dict[str, list[dict[str, Any]]]:
    """Return the images and their boxes in COCO's format."""
    annotations: list[dict[str, Any]] = []
    for image in images:
        for box, label, crowd, area in zip(image.boxes.tolist(), image.labels, image.crowd, image.areas, strict=True):
            x0, y0, x1, y1 = box
            annotations.append({
                "id": len(annotations) + 1, "image_id": image.image_id, "category_id": category_ids[label],
                "bbox": [x0, y0, x1 - x0, y1 - y0], "area": float(area), "iscrowd": int(crowd),
            })  # fmt: skip
    return {
        "images": [
            {"id": image.image_id, "file_name": image.name, "width": image.width, "height": image.height}
            for image in images
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in zip(category_ids, classes, strict=True)],
    }


def in_pixels(shares: Shares, width: int, height: int) -> ImageDetections:
    """Return detections in pixels of an image of this size."""
    boxes, scores, labels = shares
    scale = np.array([width, height, width, height], np.float32)
    return ImageDetections(boxes=boxes * scale, scores=scores, labels=labels, width=width, height=height)


def detections_of(
    detect: Detect, batches: Iterable[tuple[Sequence[BoxedImage], npt.NDArray[np.uint8]]]
) -> dict[int, ImageDetections]:
    """Return image id -> detections in pixels of the image.

    Args:
        batches: images with their pixels (B, S, S, 3) at the detector's size.
    """
    results = {}
    for images, pixels in batches:
        for image, shares in zip(images, detect(pixels), strict=True):
            results[image.image_id] = in_pixels(shares, image.width, image.height)
    return results


def score_detector(
    detect: Detect,
    batches: Iterable[tuple[Sequence[BoxedImage], npt.NDArray[np.uint8]]],
    images: Sequence[BoxedImage],
    classes: Sequence[str],
    category_ids: Sequence[int],
) -> tuple[DetectionScores, dict[int, ImageDetections]]:
    """Return COCO's metrics of a detector on `images`, and its detections by image id.

    Raises:
        ImportError: faster-coco-eval is not installed.
        ValueError: the images show no object.
    """
    results = detections_of(detect, batches)
    return coco_scores(coco_truth(images, classes, category_ids), results), results
