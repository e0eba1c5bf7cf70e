"""Run an export of a detector: write every file, compare it with the network, and only then give it its name."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mnas.atomic import claimed
from mnas.data.detection.pixels import read_stretched
from mnas.data.image import Pixels, UnreadableImage
from mnas.data.split import shuffled
from mnas.detection.evaluation import EvaluationImages, open_evaluation
from mnas.detection.exported import load_exported
from mnas.detector import DetectorMetadata, Suppression
from mnas.export.detector.gate import (
    DetectorComparison,
    DetectorGate,
    DetectorGateResult,
    detector_gate,
    judge_detector,
    torch_detect,
)
from mnas.export.detector.litert import detector_int8
from mnas.export.detector.settings import DetectExportSettings
from mnas.export.detector.tolerance import DetectorTolerance
from mnas.export.images import photographs
from mnas.export.litert import litert_fp16
from mnas.export.packages import missing_packages
from mnas.export.place import REPORT_SUFFIX, placed, require_new
from mnas.export.run import CLEAR_ERRORS, REASON_CHARS, Progress
from mnas.export.target import Target, out_file
from mnas.export.timing import Speed, TimedFile, speed, timed_file
from mnas.latency.latency import MeasurementError, UnitError
from mnas.nn.detection.network import DetectorNetwork
from mnas.nn.detection.weights import load_detector
from mnas.text import message_of
from mnas.tflite.detection.writer import write_detector

_COMPARED = 64
"""Largest number of images on which objects are compared one by one."""


@dataclass(frozen=True, kw_only=True)
class ExportedDetectorFile:
    """A written file, and its comparison with the network."""

    path: Path
    gate: DetectorGateResult

    @property
    def report(self) -> Path:
        """Return the path of the file beside it that contains the comparison."""
        return Path(f"{self.path}{REPORT_SUFFIX}")


@dataclass(frozen=True, kw_only=True)
class DetectorExport:
    """The files of an export."""

    files: tuple[ExportedDetectorFile, ...]
    """Written files; those that failed the comparison have another name than requested."""
    failures: Mapping[Path, str]
    """File that could not be written -> reason."""
    notes: tuple[str, ...]
    """Notices about the images."""

    def require_all(self) -> None:
        """Raise ValueError where a file failed the comparison or could not be written."""
        wrong = [
            f"{'; '.join(file.gate.failures)}: quarantined as {str(file.path)!r}"
            for file in self.files
            if not file.gate.passed
        ]
        wrong += [f"{path.name} was not written: {reason}" for path, reason in self.failures.items()]
        if wrong:
            raise ValueError("; ".join(wrong))


def export_detector(settings: DetectExportSettings, weights: Path, progress: Progress) -> DetectorExport:
    """Export a detector; one file's failure does not affect the others.

    Args:
        weights: file that the settings name.
        progress: takes the name of each step as it begins.

    Raises:
        ValueError: the weights cannot be read, a file exists already, or the images do not show the classes.
        ImportError: every format lacks its package.
        OSError: an image cannot be read.
    """
    network, metadata = load_detector(weights)
    rules, targets = settings.suppression(), settings.targets()
    stem = f"{weights.stem}.postprocess" if settings.postprocess else weights.stem
    outs = [out_file(settings.out, target, weights.parent / stem) for target in targets]
    for out in outs:
        require_new(out, overwrite=settings.overwrite)
    failures = missing_packages(targets, outs)
    files: list[ExportedDetectorFile] = []
    with claimed(outs, "--out"):
        for out in outs:  # another process may have written them before its claim ended
            require_new(out, overwrite=settings.overwrite)
        progress("reading images")
        images = _evaluation(settings, metadata)
        calibration = None if images is None or not settings.int8 else _calibration(settings, metadata, images)
        progress("running the network")
        gate = _gate(network, metadata, rules, images)
        reference = TimedFile(write_detector(network, metadata, rules))
        for target, out in zip(targets, outs, strict=True):
            if out in failures:
                continue
            try:
                progress(f"writing {out.name}")
                content = _exported(network, metadata, rules, target, calibration)
                progress(f"comparing {out.name} with the network")
                judge = _Judge(target, gate, settings.tolerance(target.kind), reference, settings.speed_s)
                path, result = placed(content, out, judge.result, overwrite=settings.overwrite)
                files.append(ExportedDetectorFile(path=path, gate=result))
            except Exception as error:  # whatever fails, the other files are exported first
                failures[out] = message_of(error if isinstance(error, CLEAR_ERRORS) else repr(error), REASON_CHARS)
    notes = () if images is None else images.selection.notes
    return DetectorExport(files=tuple(files), failures=failures, notes=notes)


def _evaluation(settings: DetectExportSettings, metadata: DetectorMetadata) -> EvaluationImages | None:
    if settings.data is None:
        return None
    seed = None if settings.seed == "auto" else settings.seed
    return open_evaluation(metadata, settings.data, part="val", seed=seed, most=settings.images, offers_all=False)


def _gate(
    network: DetectorNetwork, metadata: DetectorMetadata, rules: Suppression | None, images: EvaluationImages | None
) -> DetectorGate:
    detect = torch_detect(network, metadata, rules)
    if images is None:
        crops = photographs(metadata.detector.input_size)
        return detector_gate(detect, crops.pixels, crops.source, None)
    batches: list[Pixels] = []
    for _, pixels in images.batches.scoring("test", 16):
        batches.append(pixels)
        if sum(map(len, batches)) >= _COMPARED:
            break
    source = f"validation images of {images.data.name}"
    return detector_gate(
        detect,
        np.concatenate(batches)[:_COMPARED],
        source,
        lambda candidate: images.evaluated(candidate).scores.mean_precision,
    )


def _calibration(settings: DetectExportSettings, metadata: DetectorMetadata, images: EvaluationImages) -> Pixels:
    """Return training images (N, S, S, 3) to calibrate int8 on. Raises ValueError where the data has none."""
    training = images.data.train
    if not training:
        raise ValueError(f"--int8 needs training images to calibrate on, but {images.data.name!r} has none")
    size, pixels = metadata.detector.input_size, []
    for image in shuffled(training, 0):
        with contextlib.suppress(UnreadableImage):
            pixels.append(read_stretched(image.path, size)[0])
        if len(pixels) == settings.calibration_images:
            break
    return np.stack(pixels)


def _exported(
    network: DetectorNetwork,
    metadata: DetectorMetadata,
    rules: Suppression | None,
    target: Target,
    calibration: Pixels | None,
) -> bytes:
    """Return the content of the file, before any comparison."""
    if target.format == "onnx":
        from mnas.export.detector.onnx import detector_onnx

        return detector_onnx(network, metadata, rules)
    model = write_detector(network, metadata, rules)
    if target.kind == "fp16":
        return litert_fp16(model)
    if target.kind == "int8":
        assert calibration is not None
        return detector_int8(model, calibration)
    return model


@dataclass(frozen=True)
class _Judge:
    """The judgement of one target."""

    target: Target
    gate: DetectorGate
    tolerance: DetectorTolerance
    reference: TimedFile
    """The fp32 LiteRT file, which the times of the others relate to."""
    speed_s: float

    def result(self, file: Path) -> DetectorGateResult:
        """Return the gate's result for a file of the target."""
        comparison: DetectorComparison | None = None
        timed: Speed | None = None
        suppression: Suppression | None = None
        try:
            with contextlib.closing(load_exported(file)) as detector:
                suppression = detector.suppression
                comparison = self.gate.compare(detector, self.tolerance)
            failures: Sequence[str] = judge_detector(comparison, self.tolerance)
            if not failures and self.speed_s:
                with contextlib.suppress(UnitError):  # the gate judges a file by its objects alone
                    timed = speed(timed_file(file), self.reference, budget_s=self.speed_s)
        except (ValueError, RuntimeError, MeasurementError) as error:
            failures = (f"its runtime cannot run it: {' '.join(str(error).split())}",)
        return DetectorGateResult(
            file=file.name,
            format=self.target.format,
            kind=self.target.kind,
            size_bytes=file.stat().st_size,
            suppression=suppression,
            comparison=comparison,
            tolerance=self.tolerance,
            failures=tuple(failures),
            speed=timed,
        )
