"""Detections from outputs: equal to torchvision's postprocessing, and by hand."""

import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from mnas.detector import paper_boxes
from mnas.nn.detection.decoding import CODER, corner_boxes, detections

BOXES = torch.from_numpy(paper_boxes().boxes((8, 4, 2, 1, 1, 1)))


@pytest.mark.parametrize(("score", "iou", "most"), [(0.001, 0.55, 300), (0.2, 0.45, 20), (0.05, 0.0, 7)])
def test_equal_to_torchvisions_postprocessing(score: float, iou: float, most: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, len(BOXES), 6, generator=generator) * 2
    offsets = torch.randn(3, len(BOXES), 4, generator=generator) * 2
    theirs = SSD(
        torch.nn.Identity(),
        DefaultBoxGenerator([[2]]),
        (320, 320),
        6,
        head=torch.nn.Identity(),
        score_thresh=score,
        nms_thresh=iou,
        detections_per_img=most,
        topk_candidates=most,
    )
    outputs = {"bbox_regression": offsets, "cls_logits": logits}
    expected = theirs.postprocess_detections(outputs, [corner_boxes(BOXES)] * 3, [(1, 1)] * 3)
    results = detections(logits, offsets, BOXES, score_threshold=score, nms_iou=iou, most=most)
    for here, there in zip(results, expected, strict=True):
        assert torch.equal(here.boxes, there["boxes"])
        assert torch.equal(here.scores, there["scores"])
        assert torch.equal(here.labels, there["labels"])
        assert 5 <= len(here.scores) <= most
        assert here.scores.tolist() == sorted(here.scores.tolist(), reverse=True)
        overlap = box_iou(here.boxes, here.boxes) * (here.labels[:, None] == here.labels)
        assert overlap.fill_diagonal_(0).max() <= iou


def test_offsets_of_a_box_give_the_box_back() -> None:
    corners = corner_boxes(BOXES)
    box = torch.tensor([[0.1, 0.2, 0.4, 0.9]]).expand(len(BOXES), 4)
    offsets = CODER.encode_single(box, corners)
    # by hand for the first default box, a square of 0.1 around (1 / 16, 1 / 16)
    expected = [10 * (0.25 - 1 / 16) / 0.1, 10 * (0.55 - 1 / 16) / 0.1]
    expected += [5 * torch.tensor(3.0).log().item(), 5 * torch.tensor(7.0).log().item()]
    torch.testing.assert_close(offsets[0], torch.tensor(expected))
    logits = torch.full((1, len(BOXES), 3), -10.0)
    logits[..., 0] = 0
    logits[0, 5, 2] = 10
    (result,) = detections(logits, offsets[None], BOXES, score_threshold=0.5)
    torch.testing.assert_close(result.boxes, box[:1])
    assert result.labels.tolist() == [2]
    torch.testing.assert_close(result.scores, torch.tensor([10.0, 0, -10]).softmax(0)[:1])


def test_no_object_gives_empty_tensors_of_the_right_shapes() -> None:
    (result,) = detections(torch.zeros(1, len(BOXES), 3), torch.zeros(1, len(BOXES), 4), BOXES, score_threshold=0.5)
    assert (result.boxes.shape, result.scores.shape, result.labels.shape) == ((0, 4), (0,), (0,))
    assert result.labels.dtype == torch.int64


def test_half_precision_is_computed_in_float32() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, len(BOXES), 3, generator=generator).bfloat16()
    offsets = torch.randn(1, len(BOXES), 4, generator=generator).bfloat16()
    half, whole = detections(logits, offsets, BOXES), detections(logits.float(), offsets.float(), BOXES)
    assert torch.equal(half[0].boxes, whole[0].boxes)
    assert half[0].scores.dtype == torch.float32
