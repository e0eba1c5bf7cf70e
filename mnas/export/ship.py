"""Write a trained network to a file, run it by its own runtime, compare, and only then give it its name."""

import contextlib
import dataclasses
import importlib.util
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnas.atomic import place, write_atomic
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
from mnas.export.target import Target, Tolerance
from mnas.export.timing import Speed, TimedFile, speed, timed_file
from mnas.formats import FORMATS, SIDECAR_SUFFIX, imported
from mnas.latency.latency import MeasurementError, UnitError
from mnas.metadata import ModelMetadata
from mnas.nn.network import Network
from mnas.predict.model import load_model

REPORT_SUFFIX = ".gate.json"


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


def require_packages(target: Target) -> None:
    """Raise ImportError, with the extra to install, where the target's format lacks its package."""
    row = FORMATS[target.format]
    extra, packages = (row.extra, row.packages) if target.kind == "fp32" else ("quantize", ("ai_edge_quantizer",))
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"writing {target.suffix} files needs {' and '.join(missing)}; pip install 'mnas[{extra}]'")


def ship(
    content: bytes, target: Target, out: Path, gate: Gate, tolerance: Tolerance, *, overwrite: bool = True
) -> tuple[Path, GateResult]:
    """Compare a file with its network and write it to `out`, or under another name if it fails; return path and result.

    Writes beside it `NAME.gate.json` with the result and, for ExecuTorch, `NAME.json` with the metadata. A file that
    fails overwrites nothing; one that passes replaces the file of its name.

    Args:
        overwrite: whether to replace an existing file; if False, a file that appears meanwhile stays.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
        OSError: the disk is full, the folder is missing or read-only; no partial file remains.
    """
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        file = Path(folder) / out.name
        write_atomic(file, content)
        parts = [""]
        if beside := FORMATS[target.format].sidecar:
            write_atomic(Path(f"{file}{SIDECAR_SUFFIX}"), imported(beside)(gate.info, content))
            parts.append(SIDECAR_SUFFIX)
        result = _judged(file, target, gate, tolerance)
        final = out if result.passed else _free(out)
        result = dataclasses.replace(result, file=final.name)
        write_atomic(Path(f"{file}{REPORT_SUFFIX}"), json.dumps(result.to_dict(), indent=1) + "\n")
        parts.append(REPORT_SUFFIX)
        placed: list[Path] = []
        try:
            for part in reversed(parts):  # the model file last: the files beside it exist when it appears
                place(Path(f"{file}{part}"), Path(f"{final}{part}"), new=not overwrite)
                placed.append(Path(f"{final}{part}"))
        except OSError:
            if not overwrite:
                for other in placed:
                    other.unlink(missing_ok=True)
            raise
    return final, result


def _judged(file: Path, target: Target, gate: Gate, tolerance: Tolerance) -> GateResult:
    comparison: Comparison | None = None
    timed: Speed | None = None
    try:
        got = load_model(file).run(gate.images.pixels)
        comparison = compare(gate.expected, got, gate.images)
        failures: Sequence[str] = judge(comparison, tolerance)
        if not failures and gate.speed_s:
            with contextlib.suppress(UnitError):  # the gate judges a file by its outputs alone
                timed = speed(timed_file(file), gate.reference, budget_s=gate.speed_s)
    except (ValueError, RuntimeError, MeasurementError) as error:
        failures = (f"its runtime cannot run it: {' '.join(str(error).split())}",)
    return GateResult(
        file=file.name,
        format=target.format,
        kind=target.kind,
        size_bytes=file.stat().st_size,
        comparison=comparison,
        tolerance=tolerance,
        failures=tuple(failures),
        speed=timed,
    )


def _free(out: Path) -> Path:
    """Return `model.failed.tflite`, or a numbered name where that exists already."""
    stem, suffix = out.name.removesuffix(out.suffix), out.suffix
    number = 1
    while True:
        name = f"{stem}.failed{suffix}" if number == 1 else f"{stem}.failed-{number}{suffix}"
        if not any((out.parent / f"{name}{part}").exists() for part in ("", SIDECAR_SUFFIX, REPORT_SUFFIX)):
            return out.parent / name
        number += 1
