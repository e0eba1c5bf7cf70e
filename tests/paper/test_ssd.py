"""SSD300 and SSD512 of Table 3, against torchvision's own detector and ONNX Runtime."""

import numpy as np
import pytest
import torch
from torchvision.models.detection import ssd300_vgg16

from mnas.paper.ssd import VggDetector, build_ssd, ssd_cost, ssd_onnx


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def test_ssd300_is_torchvisions() -> None:
    with torch.device("meta"):
        theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=91)
        ours = VggDetector(300, 90)
        scores, offsets = ours(torch.zeros(2, 3, 300, 300))
    assert shapes(ours.extractor) == shapes(theirs.backbone)
    assert shapes(ours.head) == shapes(theirs.head)
    assert scores.shape == (2, 8732, 91)
    assert offsets.shape == (2, 8732, 4)


def test_ssd512_has_a_map_more() -> None:
    with torch.device("meta"):
        maps = VggDetector(512, 90).extractor(torch.zeros(1, 3, 512, 512))
    assert [tuple(m.shape[1:]) for m in maps.values()] == [
        (512, 64, 64),
        (1024, 32, 32),
        (512, 16, 16),
        (256, 8, 8),
        (256, 6, 6),
        (256, 4, 4),
        (256, 1, 1),
    ]


def test_the_head_counts_classes_and_background() -> None:
    params, macs = ssd_cost(300, 90)
    fewer_params, fewer_macs = ssd_cost(300, 80)
    channels = [(512, 4, 38), (1024, 6, 19), (512, 6, 10), (256, 6, 5), (256, 4, 3), (256, 4, 1)]
    assert params - fewer_params == 10 * sum(boxes * (9 * filters + 1) for filters, boxes, _ in channels)
    assert macs - fewer_macs == 10 * sum(boxes * 9 * filters * side**2 for filters, boxes, side in channels)


@pytest.mark.slow  # exports 36 million parameters
def test_the_onnx_file_is_the_network_and_repeats() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    content = ssd_onnx(300, 90)
    assert content == ssd_onnx(300, 90)
    image = np.random.default_rng(0).uniform(0, 1, (1, 3, 300, 300)).astype(np.float32)
    scores, offsets = onnxruntime.InferenceSession(content).run(["scores", "offsets"], {"image": image})
    with torch.no_grad():
        expected = build_ssd(300, 90)(torch.from_numpy(image))
    assert 0.01 < expected[1].std() < 100  # weights of a size that neither vanishes nor overflows
    for ours, theirs in zip((scores, offsets), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
