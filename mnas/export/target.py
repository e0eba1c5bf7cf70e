"""What an export makes, and what a file may differ from its network by."""

import math
from dataclasses import dataclass
from typing import Literal

from mnas.formats import FORMATS, ExportName

Kind = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One file to make."""

    format: ExportName
    kind: Kind = "fp32"
    softmax: bool = False
    """LiteRT: probabilities instead of logits."""
    integer_io: bool = False
    """LiteRT int8: int8 input and output instead of float32."""

    @property
    def suffix(self) -> str:
        """End of the file's name: .tflite, .int8.tflite, .onnx, ..."""
        suffix = FORMATS[self.format].suffix
        return f".{self.kind}{suffix}" if self.kind != "fp32" else suffix


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What an export may differ from its network by."""

    max_difference: float
    """Largest difference of an output, as a share of the largest output."""
    min_agreement: float
    """Share of the images with the same first class; one image may always differ."""
    max_accuracy_loss: float
    """Accuracy of the network less the file's; one image may always be lost."""


TOLERANCES: dict[Kind, Tolerance] = {
    # the same arithmetic in another order, in some 50 layers: 1e-6 to 1e-5 was seen; 0.05 points are the project's own
    "fp32": Tolerance(max_difference=1e-4, min_agreement=0.995, max_accuracy_loss=0.0005),
    # kernels are rounded by up to 2^-11 of themselves: 2e-3 was seen on a network that had learnt the digits, 1e-2 on a
    # random MnasNet-A1, which amplifies what is small more than trained ones do
    "fp16": Tolerance(max_difference=5e-2, min_agreement=0.98, max_accuracy_loss=0.005),
    # outputs move by several of their own 256 steps, so what counts is what is recognised; classes that change are
    # mostly those that were guessed, and as many are gained as lost, hence many may change and few be lost
    "int8": Tolerance(max_difference=math.inf, min_agreement=0.85, max_accuracy_loss=0.01),
}
"""By kind of number, with reasons; `mnas export` has options for other ones."""
