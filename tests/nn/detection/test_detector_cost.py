"""Costs counted from a detector, against those of its network and those that are published."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from mnas.arch import Arch
from mnas.detector import DefaultBoxes, Detector, paper_boxes
from mnas.nn.cost import cost
from mnas.nn.detection.cost import by_detector_layer, by_detector_part, detector_cost
from mnas.nn.detection.network import build_detector
from mnas.zoo.architectures import named_arch

COCO, COCO_IDS = 80, 90
"""COCO has 80 classes, whose ids go up to 90, which is what the Object Detection API of TensorFlow counts."""


def detector(name: str, **more: object) -> Detector:
    arch = named_arch(name)
    assert isinstance(arch, Arch)
    return Detector(**{"arch": arch, "boxes": paper_boxes(), **more})


def counted(network: nn.Module, input_size: int) -> list[tuple[tuple[int, ...], int]]:
    """Output shape and MACs of every convolution, in the order of computation."""
    calls = []

    def count(module: nn.Conv2d, _: object, output: torch.Tensor) -> None:
        calls.append((tuple(output.shape[1:]), module.weight.numel() * output.shape[2] * output.shape[3]))

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, input_size, input_size))
    return calls


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize(
    ("name", "fine", "input_size"),
    [
        ("mnasnet-a1@0.35", False, 96),
        ("mobilenetv1@0.25", True, 64),
        ("mobilenetv3-small@0.35", True, 160),
        ("mobilenetv4-conv-small", False, 64),
    ],
)
def test_params_and_macs_equal_the_networks(name: str, fine: bool, input_size: int, padding: str) -> None:
    boxes = DefaultBoxes(shapes=(((0.05, 0.1), (0.1, 0.1)), *paper_boxes().shapes)) if fine else paper_boxes()
    values = detector(name, input_size=input_size, boxes=boxes, extra_filters=(16, 10, 8, 6))
    values = Detector.from_dict({**values.to_dict(), "arch": {**values.arch.to_dict(), "padding": padding}})
    network, whole = build_detector(values, 3), detector_cost(values, 3)
    assert whole.params == sum(p.numel() for p in network.parameters())
    calls = counted(network, input_size)
    # The network predicts all classes before all offsets.
    rows = [row for row in whole.rows if ".offsets." not in row.name]
    rows += [row for row in whole.rows if ".offsets." in row.name]
    assert [(row.output_shape, row.macs) for row in rows] == calls


@pytest.mark.parametrize(
    ("name", "classes", "params", "macs", "published"),
    [
        # Tan et al., MnasNet, Table 3
        ("mnasnet-a1", COCO_IDS, 4_912_181, 837_819_232, (4.9e6, 0.8e9)),
        # Sandler et al., MobileNetV2, Table 6
        ("mobilenetv2", COCO, 4_337_013, 788_830_144, (4.3e6, 0.8e9)),
        ("mobilenetv1", COCO, 5_100_661, 1_309_162_944, (5.1e6, 1.3e9)),
    ],
)
def test_published_detectors(name: str, classes: int, params: int, macs: int, published: tuple[float, float]) -> None:
    whole = detector_cost(detector(name), classes)
    assert (whole.params, whole.macs) == (params, macs)
    assert whole.params == pytest.approx(published[0], rel=0.03)
    assert whole.macs == pytest.approx(published[1], abs=0.05e9)


def test_with_the_other_number_of_classes_the_published_sizes_are_missed() -> None:
    assert detector_cost(detector("mnasnet-a1"), COCO).params == 4_745_771
    assert detector_cost(detector("mobilenetv2"), COCO_IDS).params == 4_500_543
    assert detector_cost(detector("mobilenetv1"), COCO_IDS).params == 5_246_911
    # six boxes on the finest map, as in torchvision, have too many MACs as well
    six = replace(detector("mnasnet-a1"), boxes=paper_boxes(reduced=False))
    assert detector_cost(six, COCO).macs == 889_643_872


def test_rows_add_up() -> None:
    values = detector("mnasnet-a1")
    whole = detector_cost(values, COCO)
    rows = by_detector_layer(values, whole)
    maps = range(1, 7)
    names = ["stem", *(layer.name for layer in values.arch.layers), "head"]
    names += [*(f"extra.{n}" for n in maps[:4]), *(f"predict.{n}" for n in maps)]
    assert [row.name for row in rows] == names
    assert (sum(row.params for row in rows), sum(row.macs for row in rows)) == (whole.params, whole.macs)
    predictions = rows[-6:]
    assert [row.op for row in predictions] == ["3 boxes"] + ["6 boxes"] * 5
    assert [row.output_shape for row in predictions[:2]] == [(3 * 85, 20, 20), (6 * 85, 10, 10)]
    chain = rows[:-6]
    assert all(row.input_shape == before.output_shape for before, row in itertools.pairwise(chain))
    parts = by_detector_part(whole)
    assert sum(params for params, _ in parts.values()) == whole.params
    assert sum(macs for _, macs in parts.values()) == whole.macs
    classifier = cost(values.arch, 320, 1000)
    assert parts["backbone"][0] == classifier.params - classifier.rows[-1].params
    with pytest.raises(ValueError, match="num_classes must be 1 or more, but got 0"):
        detector_cost(values, 0)
