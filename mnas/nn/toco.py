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
from mnas.ops import Residual, Squeeze

_SIGMOID = 64


def toco_macs(arch: Arch, input_size: int, num_classes: int = 1000) -> float:
    """Return half of TOCO's arithmetic operations for one image, for networks without pooled skips.

    Raises:
        ValueError: the image is too small for the strides, or num_classes is below 1.
    """
    rows = cost(arch, input_size, num_classes).rows
    ops = sum(2 * row.macs + math.prod(row.output_shape) for row in rows)
    for visit in arch.visit(input_size):
        if isinstance(visit.part, Residual) and not visit.part.pooled:
            ops += math.prod(visit.output_shape)
        if isinstance(visit.part, Squeeze):
            ops += math.prod(visit.output_shape) + _SIGMOID * visit.part.channels
    return ops / 2
