"""The targets of an export, and the tolerance for each."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mnas.formats import FORMATS, ExportName

Kind = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One file to make."""

    format: ExportName
    kind: Kind = "fp32"
    softmax: bool = False
    """Whether a LiteRT file gives probabilities instead of logits."""
    integer_io: bool = False
    """Whether a LiteRT int8 file takes int8 input and gives int8 output instead of float32."""

    @property
    def suffix(self) -> str:
        """Suffix of the file's name: .tflite, .int8.tflite, .onnx, ..."""
        suffix = FORMATS[self.format].suffix
        return f".{self.kind}{suffix}" if self.kind != "fp32" else suffix


def out_file(out: Path | None, target: Target, default: Path) -> Path:
    """Return the path to write a target to.

    Args:
        out: file or folder that the user names; None: none.
        default: path without `out`; the target's suffix is added.

    Raises:
        ValueError: the file's name lacks the suffix of the format, or its folder is missing.
    """
    name = f"{default.name}{target.suffix}"
    place = default.parent if out is None else out
    file = place / name if out is None or place.is_dir() else place
    if file.suffix != Path(name).suffix:
        raise ValueError(f"--out must end in {Path(name).suffix} for {target.format}, but got {str(file)!r}")
    if not file.parent.is_dir():
        raise ValueError(f"--out must be in an existing folder, but got {str(file)!r}")
    return file


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Largest differences between a file and its network that pass."""

    max_difference: float
    """Largest difference of an output, as a share of the largest output."""
    min_agreement: float
    """Smallest share of images with the same predicted class; one image may always differ."""
    max_accuracy_loss: float
    """Largest loss of accuracy against the network; one image may always be lost."""


TOLERANCES: dict[Kind, Tolerance] = {
    # the same arithmetic in another order, in some 50 layers: observed 1e-6 to 1e-5; 0.05 points are the project's rule
    "fp32": Tolerance(max_difference=1e-4, min_agreement=0.995, max_accuracy_loss=0.0005),
    # rounding changes kernels by up to 2^-11 of their value: observed 2e-3 on a network trained on digits, and 1e-2 on
    # a random MnasNet-A1, which amplifies small differences more than trained networks do
    "fp16": Tolerance(max_difference=5e-2, min_agreement=0.98, max_accuracy_loss=0.005),
    # outputs move by several of their 256 steps, so the predicted class counts. It changes mostly where the network is
    # uncertain, which gains as many correct predictions as it loses: many may change, but accuracy must hardly fall
    "int8": Tolerance(max_difference=math.inf, min_agreement=0.85, max_accuracy_loss=0.01),
}
"""Tolerance for each kind of number, with reasons; `mnas export` has options to change it."""
