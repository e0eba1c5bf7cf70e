"""Write a trained network to a file, run it by its own runtime, compare, and only then give it its name."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnas.export.gate import (
    Comparison,
    GateResult,
    compare,
    judge,
    normalised,
    torch_outputs,
)
from mnas.export.images import RealImages
from mnas.export.litert import litert_fp16, litert_fp32, litert_int8
from mnas.export.place import placed
from mnas.export.target import Target, Tolerance
from mnas.export.timing import TimedFile
from mnas.export.written import judged
from mnas.formats import FORMATS, imported
from mnas.metadata import ModelMetadata
from mnas.nn.network import Network
from mnas.predict.model import load_model


def exported(network: Network, info: ModelMetadata, target: Target, calibration: RealImages | None) -> bytes:
    """Return the content of the file, before any comparison.

    Raises:
        ValueError: int8 lacks calibration images, or a weight is not finite.
        ImportError: the format's package is missing.
    """
    options = {"softmax": True} if target.softmax else {}
    model: bytes = imported(FORMATS[target.format].writer)(network, info, **options)
    if target.kind == "fp16":
        return litert_fp16(model)
    if target.kind == "int8":
        if calibration is None:
            raise ValueError("--int8 needs --data for images to calibrate on, but got none")
        return litert_int8(model, normalised(info, calibration.pixels), integer_io=target.integer_io)
    return model


@dataclass(frozen=True, kw_only=True, eq=False)
class Gate:
    """The images, outputs and reference file that the files of one network are compared with."""

    info: ModelMetadata
    images: RealImages
    expected: NDArray[np.float32]
    """Outputs (N, classes) of the network for the images."""
    reference: TimedFile
    """The fp32 LiteRT file, which the times of the others relate to."""
    speed_s: float
    """Time in seconds to measure each file's speed; 0: no measurement."""


def make_gate(
    network: Network, info: ModelMetadata, images: RealImages, *, softmax: bool = False, speed_s: float = 3.0
) -> Gate:
    """Return the gate of `network` over `images`."""
    return Gate(
        info=info,
        images=images,
        expected=torch_outputs(network, info, images.pixels, softmax=softmax),
        reference=TimedFile(litert_fp32(network, info, softmax=softmax)),
        speed_s=speed_s,
    )


def ship(
    content: bytes, target: Target, out: Path, gate: Gate, tolerance: Tolerance, *, overwrite: bool = True
) -> tuple[Path, GateResult]:
    """Compare a file with its network and place it as `placed` does; for ExecuTorch also `NAME.json`, its metadata."""
    sidecar = FORMATS[target.format].sidecar
    return placed(
        content,
        out,
        lambda file: _judged(file, target, gate, tolerance),
        sidecar=imported(sidecar)(gate.info, content) if sidecar else None,
        overwrite=overwrite,
    )


def _judged(file: Path, target: Target, gate: Gate, tolerance: Tolerance) -> GateResult:
    def compared(file: Path) -> tuple[Comparison, tuple[str, ...]]:
        comparison = compare(gate.expected, load_model(file).run(gate.images.pixels), gate.images)
        return comparison, judge(comparison, tolerance)

    comparison, record = judged(file, target, compared, reference=gate.reference, speed_s=gate.speed_s)
    return GateResult(**record, comparison=comparison, tolerance=tolerance)
