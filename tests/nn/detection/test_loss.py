"""The loss: equal to torchvision's on the same matches; crowds, empty images and shared default boxes by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import SSDMatcher
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from mnas.detector import paper_boxes
from mnas.nn.detection.decoding import CODER, corner_boxes
from mnas.nn.detection.loss import BoxTarget, detection_loss, matches_of

BOXES = torch.from_numpy(paper_boxes().boxes((8, 4, 2, 1, 1, 1)))
CORNERS = corner_boxes(BOXES)
NONE = BoxTarget(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def random_target(count: int, generator: torch.Generator) -> BoxTarget:
    low = torch.rand(count, 2, generator=generator) * 0.8
    high = low + (0.05 + 0.95 * torch.rand(count, 2, generator=generator)) * (1 - low)
    return BoxTarget(torch.cat([low, high], 1), torch.randint(1, 6, (count,), generator=generator))


def outputs(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    logits = torch.randn(count, len(BOXES), 6, generator=generator, requires_grad=True)
    return logits, torch.randn(count, len(BOXES), 4, generator=generator, requires_grad=True)


def torchvisions_loss(logits: Tensor, offsets: Tensor, targets: list[BoxTarget], matches: list[Tensor]) -> list[Tensor]:
    detector = SimpleNamespace(box_coder=CODER, neg_to_pos_ratio=3.0)
    fields = [{"boxes": target.boxes, "labels": target.labels} for target in targets]
    heads = {"bbox_regression": offsets, "cls_logits": logits}
    losses = SSD.compute_loss(detector, fields, heads, [CORNERS] * len(targets), matches)
    return [losses["classification"], losses["bbox_regression"]]


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_torchvisions_loss_with_its_gradients(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets = [random_target(count, generator) for count in (1, 3, 12)]
    logits, offsets = outputs(3, generator)
    matches = [SSDMatcher(0.5)(box_iou(target.boxes, CORNERS)) for target in targets]
    for target, match in zip(targets, matches, strict=True):
        assert torch.equal(matches_of(target, CORNERS), match)
    expected = torchvisions_loss(logits, offsets, targets, matches)
    gradients = torch.autograd.grad(sum(expected), [logits, offsets])
    loss = detection_loss(logits, offsets, targets, BOXES)
    torch.testing.assert_close([loss.classes, loss.offsets], expected)
    torch.testing.assert_close(torch.autograd.grad(loss.total, [logits, offsets]), gradients)


def test_an_image_without_objects_trains_its_three_hardest_boxes_as_background() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, offsets = outputs(1, generator)
    loss = detection_loss(logits, offsets, [NONE], BOXES)
    hardest = (-logits[0].log_softmax(-1)[:, 0]).topk(3).values
    torch.testing.assert_close(loss.classes, hardest.sum())
    assert loss.offsets == 0
    # beside an image with objects, they are three more terms of the same mean
    targets = [random_target(4, generator), NONE]
    logits, offsets = outputs(2, generator)
    matches = [SSDMatcher(0.5)(box_iou(targets[0].boxes, CORNERS)), torch.full((len(BOXES),), -1)]
    classes, distance = torchvisions_loss(logits, offsets, targets, matches)
    count = (matches[0] >= 0).sum()
    loss = detection_loss(logits, offsets, targets, BOXES)
    hardest = (-logits[1].log_softmax(-1)[:, 0]).topk(3).values
    torch.testing.assert_close(loss.classes, classes + hardest.sum() / count)
    torch.testing.assert_close(loss.offsets, distance)


def test_boxes_in_a_crowd_are_neither_positive_nor_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    plain = random_target(3, generator)
    crowd = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.4, 0.0, 0.6, 0.1]])
    target = plain._replace(crowds=crowd)
    match, before = matches_of(target, CORNERS), matches_of(plain, CORNERS)
    clipped = torch.cat([torch.maximum(CORNERS[:, :2], crowd[0, :2]), torch.minimum(CORNERS[:, 2:], crowd[0, 2:])], 1)
    sides = (clipped[:, 2:] - clipped[:, :2]).clamp(min=0)
    inside = sides.prod(1) >= 0.5 * (CORNERS[:, 2:] - CORNERS[:, :2]).prod(1)
    assert torch.equal(match[before >= 0], before[before >= 0])
    assert (match[inside & (before < 0)] == -2).all()
    assert 0 < (match == -2).sum() - (inside & (before < 0)).sum() < 5  # the second region has a few more
    # Their outputs do not change the loss, although they would be the hardest negatives.
    logits, offsets = outputs(1, generator)
    loss = detection_loss(logits, offsets, [target], BOXES)
    harder = logits.detach().clone()
    harder[0, match == -2, 0] -= 20
    torch.testing.assert_close(detection_loss(harder, offsets, [target], BOXES).total, loss.total)
    assert detection_loss(harder, offsets, [plain], BOXES).total > loss.total + 5
    gradient = torch.autograd.grad(loss.total, logits)[0]
    assert (gradient[0, match == -2] == 0).all()


def test_a_crowd_over_the_whole_image_trains_nothing() -> None:
    logits, offsets = outputs(1, torch.Generator().manual_seed(0))
    target = NONE._replace(crowds=torch.tensor([[-1.0, -1.0, 2.0, 2.0]]))
    loss = detection_loss(logits, offsets, [target], BOXES)
    assert (loss.classes.item(), loss.offsets.item()) == (0, 0)
    assert (torch.autograd.grad(loss.total, logits)[0] == 0).all()


def test_every_object_gets_its_best_box_and_of_equal_objects_the_last_one() -> None:
    tiny = torch.tensor([[0.5, 0.5, 0.52, 0.52], [0.1, 0.1, 0.12, 0.12], [0.1, 0.1, 0.12, 0.12]])
    match = matches_of(BoxTarget(tiny, torch.tensor([1, 2, 3])), CORNERS)
    assert sorted(match[match >= 0].tolist()) == [0, 2]
    assert box_iou(tiny, CORNERS).max() < 0.1


def test_half_precision_is_computed_in_float32() -> None:
    generator = torch.Generator().manual_seed(2)
    targets = [random_target(3, generator)]
    logits, offsets = outputs(1, generator)
    half = detection_loss(logits.bfloat16(), offsets.bfloat16(), targets, BOXES)
    assert half.total.dtype == torch.float32
    expected = detection_loss(logits.bfloat16().float(), offsets.bfloat16().float(), targets, BOXES)
    assert half.total.item() == expected.total.item()
