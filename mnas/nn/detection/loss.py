"""SSD's multibox loss (Liu et al., section 2.2), equal to torchvision's for images with boxes that are no crowds.

Departures, both without an effect on other images:
1. An image without objects trains its 3 hardest default boxes as background, as in tensorflow/models,
   research/object_detection (`min_negatives_per_image`). In torchvision it trains nothing.
2. Default boxes that lie in a crowd region are no negatives. Torchvision's reference training drops crowds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_area, box_iou

from mnas.boxes import MATCH_IOU
from mnas.nn.detection.decoding import CODER, corner_boxes

_NEGATIVES = 3
"""Number of negatives for each positive, and the least for an image."""
_BACKGROUND, _CROWD = -1, -2


class BoxTarget(NamedTuple):
    """Objects and crowds of an image."""

    boxes: Tensor
    """Left, top, right and bottom (N, 4) of objects, as shares of the image; each has an area."""
    labels: Tensor
    """Classes (N,) from 1, int64."""
    crowds: Tensor | None = None
    """Boxes (M, 4) of regions with objects that are not annotated one by one; None: no such regions."""


class DetectionLoss(NamedTuple):
    """Means over all positive default boxes of a batch."""

    classes: Tensor
    """Cross entropy of the positives and the hardest negatives."""
    offsets: Tensor
    """Smooth L1 distance of the offsets."""

    @property
    def total(self) -> Tensor:
        return self.classes + self.offsets


def detection_loss(
    logits: Tensor, offsets: Tensor, targets: Sequence[BoxTarget], default_boxes: Tensor
) -> DetectionLoss:
    """Return the loss of a batch, in float32.

    Args:
        logits: (N, A, 1 + C); class 0 is the background.
        offsets: (N, A, 4).
        targets: objects of each of the N images, on the same device.
        default_boxes: centre x and y, width and height (A, 4), as `DetectorNetwork.default_boxes`.
    """
    logits, offsets = logits.float(), offsets.float()
    corners = corner_boxes(default_boxes.float())
    matches = [matches_of(target, corners) for target in targets]
    classes = torch.zeros(logits.shape[:2], dtype=torch.int64, device=logits.device)
    distances = []
    for index, (target, match) in enumerate(zip(targets, matches, strict=True)):
        positive = torch.where(match >= 0)[0]
        classes[index, positive] = target.labels[match[positive]]
        wanted = CODER.encode_single(target.boxes[match[positive]].float(), corners[positive])
        distances.append(F.smooth_l1_loss(offsets[index, positive], wanted, reduction="sum"))
    losses = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none").view(classes.shape)
    chosen = (classes > 0) | _hardest(losses.detach(), torch.stack(matches))
    count = (classes > 0).sum().clamp(min=1)
    return DetectionLoss(losses[chosen].sum() / count, torch.stack(distances).sum() / count)


def matches_of(target: BoxTarget, corners: Tensor) -> Tensor:
    """Return for each default box (A,) the index of its object, -1 for the background, or -2 in a crowd.

    A default box belongs to the object that it overlaps most, where that is `MATCH_IOU` or more. Besides, each object
    gets the default box that overlaps it most; where several objects share that box, the last one.

    Args:
        corners: left, top, right and bottom (A, 4) of the default boxes.
    """
    matches = torch.full((len(corners),), _BACKGROUND, dtype=torch.int64, device=corners.device)
    if target.crowds is not None and len(target.crowds):
        matches[_share_inside(corners, target.crowds.float()) >= MATCH_IOU] = _CROWD
    if len(target.boxes):
        overlap = box_iou(target.boxes.float(), corners)
        best, objects = overlap.max(dim=0)
        matches = torch.where(best >= MATCH_IOU, objects, matches)
        # A plain assignment would leave open on a GPU which one of several objects gets the box.
        numbers = torch.arange(len(target.boxes), device=corners.device)
        matches.scatter_reduce_(0, overlap.argmax(dim=1), numbers, "amax", include_self=False)
    return matches


def _share_inside(boxes: Tensor, regions: Tensor) -> Tensor:
    """Return the largest share (A,) of each box (A, 4) inside any of the regions (M, 4)."""
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    sides = (torch.minimum(boxes[:, None, 2:], regions[None, :, 2:]) - low).clamp(min=0)
    share: Tensor = sides.prod(-1) / box_area(boxes)[:, None]
    return share.amax(1)


def _hardest(losses: Tensor, matches: Tensor) -> Tensor:
    """Return which default boxes (N, A) are the negatives of the largest losses."""
    counts = _NEGATIVES * (matches >= 0).sum(1, keepdim=True).clamp(min=1)
    negative = matches == _BACKGROUND
    order = losses.masked_fill(~negative, -torch.inf).argsort(1, descending=True)
    return (order.argsort(1) < counts) & negative
