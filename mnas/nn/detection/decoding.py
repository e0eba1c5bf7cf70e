"""Boxes from a detector's outputs, and offsets from boxes, as in SSD (Liu et al., sections 2.2 and 2.3).

An offset moves the centre by a share of the default box, and scales its sides by an exponential: (x / 10, y / 10,
w / 5, h / 5), where 10 and 5 are the inverse of the variances 0.1 and 0.2 of SSD's published code.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, box_convert

CODER = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
"""Map between offsets and boxes, both relative to default boxes as corners."""


class Detections(NamedTuple):
    """Objects in an image, the best score first."""

    boxes: Tensor
    """Left, top, right and bottom (N, 4), as shares of the image."""
    scores: Tensor
    """Probabilities (N,)."""
    labels: Tensor
    """Classes (N,) from 1, int64."""


def corner_boxes(default_boxes: Tensor) -> Tensor:
    """Return boxes (A, 4) of centre x and y, width and height as left, top, right and bottom."""
    corners: Tensor = box_convert(default_boxes, "cxcywh", "xyxy")
    return corners


@torch.no_grad()
def detections(
    logits: Tensor,
    offsets: Tensor,
    default_boxes: Tensor,
    *,
    score_threshold: float = 0.001,
    nms_iou: float = 0.55,
    most: int = 300,
) -> list[Detections]:
    """Return the objects in each image: per class the `most` best above a score, without those that overlap a better.

    Defaults are those of torchvision's SSDLite. Computes in float32, on the device of the arguments.

    Args:
        logits: (N, A, 1 + C); class 0 is the background.
        offsets: (N, A, 4).
        default_boxes: centre x and y, width and height (A, 4), as `DetectorNetwork.default_boxes`.
        score_threshold: probability above which a box is an object.
        nms_iou: intersection over union with a better box of the same class above which a box is dropped.
        most: largest number of objects in an image, and of candidates of a class.
    """
    corners = corner_boxes(default_boxes.float())
    results = []
    for image_logits, image_offsets in zip(logits.float(), offsets.float(), strict=True):
        boxes = CODER.decode_single(image_offsets, corners).clamp(0, 1)
        scores = image_logits.softmax(-1)[:, 1:]
        results.append(best_boxes(boxes, scores, score_threshold=score_threshold, nms_iou=nms_iou, most=most))
    return results


def best_boxes(
    boxes: Tensor, scores: Tensor, *, score_threshold: float = 0.001, nms_iou: float = 0.55, most: int = 300
) -> Detections:
    """Return the objects in one image as `detections` does.

    Args:
        boxes: left, top, right and bottom (A, 4).
        scores: probabilities (A, C) of the classes, without the background.
    """
    best, indices = scores.t().topk(min(most, len(scores)))  # (C, most)
    classes, ranks = torch.where(best > score_threshold)
    best, boxes, labels = best[classes, ranks], boxes[indices[classes, ranks]], classes + 1
    order = batched_nms(boxes, best, labels, nms_iou)[:most]
    return Detections(boxes[order], best[order], labels[order])
