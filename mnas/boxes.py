"""Overlap of boxes, as plain arrays: which boxes of a data set the default boxes of a detector reach."""

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]
"""Boxes (N, 4) as shares of the image."""

MATCH_IOU = 0.5
"""Intersection over union from which a default box is responsible for an object (Liu et al., SSD, section 2.2)."""
_PAIRS = 1 << 22  # pairs of boxes compared at once, about 100 MB


def corners(boxes: Boxes) -> Boxes:
    """Return boxes (N, 4) of centre x and y, width and height as left, top, right and bottom."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def best_iou(boxes: npt.ArrayLike, default_boxes: Boxes) -> npt.NDArray[np.float32]:
    """Return the largest intersection over union (N,) of each box with any default box, 0 for a box without area.

    Args:
        boxes: left, top, right and bottom (N, 4), as shares of the image.
        default_boxes: centre x and y, width and height (A, 4), as `Detector.default_boxes`.
    """
    array = np.asarray(boxes, np.float32).reshape(-1, 4)
    others = corners(default_boxes)
    step = max(1, _PAIRS // len(others))
    parts = [ious(array[i : i + step], others).max(axis=1) for i in range(0, len(array), step)]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def matched(boxes: npt.ArrayLike, default_boxes: Boxes) -> npt.NDArray[np.bool_]:
    """Return for each box (N, 4) whether some default box reaches it with `MATCH_IOU`; arguments as in `best_iou`."""
    return best_iou(boxes, default_boxes) >= MATCH_IOU


def ious(boxes: Boxes, others: Boxes) -> Boxes:
    """Return the intersection over union (N, M) of boxes (N, 4) and others (M, 4), all left, top, right, bottom."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - low
    common = np.prod(np.maximum(sides, 0), axis=2)
    areas, other_areas = (np.prod(array[:, 2:] - array[:, :2], axis=1) for array in (boxes, others))
    iou: Boxes = common / (areas[:, None] + other_areas - common)
    return iou
