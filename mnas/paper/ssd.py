"""SSD300 and SSD512 on VGG16 (Liu et al., ECCV 2016, arXiv:1512.02325) from torchvision's modules, untrained.

SSD300 is torchvision's `ssd300_vgg16`. SSD512 is its feature extractor for 512 pixels with the default boxes of the SSD
paper. That extractor has no stride in its last layers but two: the last three maps have 6, 4 and 1 pixels a side, and
those of the paper have 4, 2 and 1.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import vgg16
from torchvision.models.detection.ssd import SSDFeatureExtractorVGG, SSDHead

SsdSize = Literal[300, 512]
_FILTERS = {300: [512, 1024, 512, 256, 256, 256], 512: [512, 1024, 512, 256, 256, 256, 256]}
"""Input size -> channels of each map."""
_BOXES = {300: [4, 6, 6, 6, 4, 4], 512: [4, 6, 6, 6, 6, 4, 4]}
"""Input size -> default boxes at each pixel of each map."""
_NORM_SCALE = 20.0


class VggDetector(nn.Module):
    """SSD without its selection of boxes: images (N, 3, S, S) -> scores (N, A, 1 + C) and offsets (N, A, 4)."""

    def __init__(self, input_size: SsdSize, num_classes: int) -> None:
        super().__init__()
        self.extractor = SSDFeatureExtractorVGG(vgg16(weights=None).features, highres=input_size == 512)
        self.head = SSDHead(_FILTERS[input_size], _BOXES[input_size], 1 + num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.head(list(self.extractor(images).values()))
        return outputs["cls_logits"].softmax(2), outputs["bbox_regression"]


def ssd_cost(input_size: SsdSize, num_classes: int) -> tuple[int, int]:
    """Return params and multiply-accumulates of all convolutions for one image; computes nothing but shapes.

    Args:
        num_classes: number of classes without the background.
    """
    macs = 0

    def count(module: nn.Conv2d, _: object, output: Tensor) -> None:
        nonlocal macs
        macs += module.weight.numel() * output.shape[2] * output.shape[3]

    with torch.device("meta"), torch.no_grad():
        network = VggDetector(input_size, num_classes)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(count)
        network(torch.zeros(1, 3, input_size, input_size))
    return sum(parameter.numel() for parameter in network.parameters()), macs


def build_ssd(input_size: SsdSize, num_classes: int) -> VggDetector:
    """Return SSD with fixed random weights that keep activations near 1, in evaluation mode."""
    with torch.device("meta"):  # VGG16's classifier, which SSD drops, would take seconds to initialise
        network = VggDetector(input_size, num_classes)
    network.to_empty(device="cpu")
    draw = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=draw)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    nn.init.constant_(network.extractor.scale_weight, _NORM_SCALE)
    return network.eval()


def ssd_onnx(input_size: SsdSize, num_classes: int) -> bytes:
    """Return an ONNX file of `build_ssd`, with the outputs `scores` and `offsets`.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    from mnas.export.onnx import onnx_model

    model = onnx_model(build_ssd(input_size, num_classes), input_size, ("scores", "offsets"))
    return bytes(model.SerializeToString(deterministic=True))
