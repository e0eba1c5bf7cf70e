"""The multiply-accumulates that the MnasNet authors' tables give: TensorFlow Lite's converter's count, halved.

TOCO estimated "arithmetic ops" of the inference graph (tensorflow/lite/toco/tooling_util.cc,
EstimateArithmeticOpsCount), batch norms folded: 2 for each multiply-accumulate of a convolution or fully connected
layer, 1 for each output value of one (its bias), 1 for each value of an addition or multiplication (residuals;
squeeze-and-excitation's scaling), 64 for each value of a sigmoid, nothing for ReLU and means. Half of them is what is
published: with it all 25 points of `mnas.zoo.published` come out within their rounding. That the authors used TOCO is
written nowhere; it is inferred from that agreement.
"""

import math

from mnas.arch import Arch
from mnas.nn.cost import cost

_SIGMOID = 64


def toco_macs(arch: Arch, input_size: int, num_classes: int = 1000) -> float:
    """Half of the arithmetic operations for one image as TOCO counts them, for networks without pooled skips.

    Raises:
        ValueError: the image is too small for the strides, or num_classes below 1.
    """
    rows = cost(arch, input_size, num_classes).rows
    sizes = {row.name: math.prod(row.output_shape) for row in rows}
    ops = sum(2 * row.macs + sizes[row.name] for row in rows)
    for layer in arch.layers:
        *_, last = (part for part in ("conv", "project") if f"{layer.name}.{part}" in sizes)
        if layer.skip == "identity":
            ops += sizes[f"{layer.name}.{last}"]
        if layer.se_filters:
            scaled = "conv" if layer.op == "conv" else "depthwise"
            ops += sizes[f"{layer.name}.{scaled}"] + _SIGMOID * layer.se_channels
    return ops / 2
