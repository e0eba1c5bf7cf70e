"""Detectors as plain values: the paper's default boxes equal torchvision's, and files restore the same record."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator

from mnas.arch import Arch
from mnas.detector import DefaultBoxes, Detector, DetectorMetadata, detector_from_json, detector_json, paper_boxes
from mnas.zoo.architectures import named_arch


def detector(**more: Any) -> Detector:
    arch = named_arch("mnasnet-a1")
    assert isinstance(arch, Arch)
    return Detector(**{"arch": arch, "boxes": paper_boxes(), **more})


@pytest.mark.parametrize("input_size", [320, 224, 512])
def test_six_boxes_on_each_map_are_those_of_torchvision(input_size: int) -> None:
    ours = detector(input_size=input_size, boxes=paper_boxes(reduced=False))
    generator = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    sides = [[side, side] for side in ours.map_sides]
    expected = generator._grid_default_boxes(sides, [input_size, input_size]).numpy()
    np.testing.assert_allclose(ours.default_boxes, expected, atol=1e-6)


def test_the_paper_has_three_boxes_on_the_finest_map() -> None:
    first, *others = paper_boxes().shapes
    np.testing.assert_allclose(first, [(0.1, 0.1), (0.2 * 2**0.5, 0.2 / 2**0.5), (0.2 / 2**0.5, 0.2 * 2**0.5)])
    assert tuple(others) == paper_boxes(reduced=False).shapes[1:]
    # the published SSD on MobileNets has 1917 boxes at 300 px, with maps of these sides
    assert len(paper_boxes().boxes((19, 10, 5, 3, 2, 1))) == 1917


def test_maps_halve_from_output_stride_8_or_16() -> None:
    assert detector().map_sides == (20, 10, 5, 3, 2, 1)
    finer = detector(boxes=DefaultBoxes(shapes=(((0.05, 0.1),), *paper_boxes().shapes)), input_size=352)
    assert finer.map_sides == (44, 22, 11, 6, 3, 2, 1)
    assert len(finer.default_boxes) == 44**2 + 3 * 22**2 + 6 * (11**2 + 6**2 + 3**2 + 2**2 + 1)


def test_files_restore_the_same_record() -> None:
    metadata = DetectorMetadata(
        detector=detector(), classes=("cell", "platelet"), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), mean_precision=0.4
    )
    restored = detector_from_json(json.loads(json.dumps(detector_json(metadata))))
    assert restored == metadata
    assert restored.detector.fingerprint == detector().fingerprint != detector(input_size=352).fingerprint


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"input_size": 300}, "--input-size must be a multiple of 32, but got 300"),
        ({"input_size": 4128}, "--input-size must be an integer from 32 to 4096, but got 4128"),
        ({"arch": replace(detector().arch, stem_stride=1)}, "output stride 32, but got 16"),
        ({"boxes": paper_boxes(5)}, "default boxes on two or three more, but got 5 maps"),
        ({"head": "yolo"}, "head must be one of ssdlite, but got 'yolo'"),
    ],
)
def test_what_does_not_fit_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detector(**more)
    with pytest.raises(ValueError, match=r"must be a number from 0\.0001 to 1, but got 2"):
        DefaultBoxes(shapes=(((2, 0.5),),))
