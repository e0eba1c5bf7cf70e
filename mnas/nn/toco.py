"""Multiply-accumulates as in the MnasNet authors' tables: half of the operations that TensorFlow Lite's TOCO counts.

TOCO estimated "arithmetic ops" of the inference graph (tensorflow/lite/toco/tooling_util.cc,
EstimateArithmeticOpsCount), batch norms folded: 2 for each multiply-accumulate of a convolution or fully connected
layer, 1 for each output value of one (its bias), 1 for each value of an addition or multiplication (residuals;
squeeze-and-excitation's scaling), 64 for each value of a sigmoid, nothing for ReLU and means. Half of this count
matches all 25 points of `mnas.zoo.published` within their rounding. No publication says that the authors used TOCO; we
infer it from this agreement.
"""

import math

from mnas.arch import Arch
from mnas.nn.cost import cost

_SIGMOID = 64


def toco_macs(arch: Arch, input_size: int, num_classes: int = 1000) -> float:
    """Return half of TOCO's arithmetic operations for one image, for networks without pooled skips.

    Raises:
        ValueError: the image is too small for the strides, or num_classes is below 1.
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
