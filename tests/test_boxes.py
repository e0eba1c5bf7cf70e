"""Overlap of boxes: equal to torchvision's matcher, and by hand."""

import numpy as np
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_convert, box_iou

from mnas import boxes as module
from mnas.boxes import best_iou, corners, matched
from mnas.detector import paper_boxes

DEFAULT_BOXES = paper_boxes().boxes((20, 10, 5, 3, 2, 1))


def random_boxes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.9, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.01, 1, (count, 2)) * (1 - low)], axis=1).astype(np.float32)


def test_the_same_boxes_are_matched_as_by_torchvision() -> None:
    boxes = random_boxes(3000, seed=0)
    anchors = box_convert(torch.tensor(DEFAULT_BOXES), "cxcywh", "xyxy")
    np.testing.assert_array_equal(corners(DEFAULT_BOXES), anchors.numpy())
    overlap = box_iou(torch.tensor(boxes), anchors)
    np.testing.assert_allclose(best_iou(boxes, DEFAULT_BOXES), overlap.max(dim=1).values, rtol=1e-6)
    # A default box counts for the one object that it overlaps most, so each box is matched alone.
    matcher = Matcher(0.5, 0.5)
    expected = [bool((matcher(row[None]) >= 0).any()) for row in overlap]
    assert matched(boxes, DEFAULT_BOXES).tolist() == expected
    assert 1000 < sum(expected) < 2900


def test_by_hand() -> None:
    default_boxes = np.array([[0.25, 0.25, 0.5, 0.5]], np.float32)
    boxes = [[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.25], [0, 0, 0.5, 0.2], [0.5, 0.5, 1, 1], [0.1, 0.1, 0.1, 0.1]]
    np.testing.assert_allclose(best_iou(boxes, default_boxes), [1, 0.5, 0.4, 0, 0], rtol=1e-6)
    assert matched(boxes, default_boxes).tolist() == [True, True, False, False, False]
    assert matched([], default_boxes).shape == (0,)


def test_many_boxes_are_compared_in_parts(monkeypatch) -> None:
    boxes = random_boxes(50, seed=1)
    whole = best_iou(boxes, DEFAULT_BOXES)
    monkeypatch.setattr(module, "_PAIRS", 7 * len(DEFAULT_BOXES))
    assert best_iou(boxes, DEFAULT_BOXES).tobytes() == whole.tobytes()


def test_small_platelets_reach_no_default_box_of_the_paper() -> None:
    side = 22 / 320
    assert not matched([[0.5 - side / 2, 0.5 - side / 2, 0.5 + side / 2, 0.5 + side / 2]], DEFAULT_BOXES).any()
