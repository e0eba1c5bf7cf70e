"""Run an export of a detector: write every file, compare it with the network, and only then give it its name."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
from mnas.export.images import photographs
from mnas.export.litert import litert_fp16
from mnas.export.place import placed
from mnas.export.target import Target, out_file
from mnas.export.timing import TimedFile
from mnas.export.written import Progress, WrittenFile, WrittenFiles, judged, reserved, write_each
from mnas.nn.detection.network import DetectorNetwork
from mnas.nn.detection.weights import load_detector
from mnas.tflite.detection.writer import write_detector

_COMPARED = 64
"""Largest number of images on which objects are compared one by one."""


@dataclass(frozen=True, kw_only=True)
class ExportedDetectorFile(WrittenFile):
    """A written file, and its comparison with the network."""

    gate: DetectorGateResult


@dataclass(frozen=True, kw_only=True)
class DetectorExport(WrittenFiles):
    """The files of an export."""

    files: Sequence[ExportedDetectorFile]


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
    with reserved(targets, outs, overwrite=settings.overwrite) as failures:
        progress("reading images")
        images = _evaluation(settings, metadata)
        calibration = None if images is None or not settings.int8 else _calibration(settings, metadata, images)
        progress("running the network")
        gate = _gate(network, metadata, rules, images)
        reference = TimedFile(write_detector(network, metadata, rules))

        def written(target: Target, out: Path) -> ExportedDetectorFile:
            progress(f"writing {out.name}")
            content = _exported(network, metadata, rules, target, calibration)
            progress(f"comparing {out.name} with the network")
            path, result = placed(
                content,
                out,
                lambda file: _judged(file, target, gate, settings, reference),
                overwrite=settings.overwrite,
            )
            return ExportedDetectorFile(path=path, gate=result)

        files = write_each(targets, outs, failures, written)
    notes = () if images is None else images.selection.notes
    return DetectorExport(files=files, failures=failures, notes=notes)


def _evaluation(settings: DetectExportSettings, metadata: DetectorMetadata) -> EvaluationImages | None:
    if settings.data is None:
        return None
    return open_evaluation(
        metadata, settings.data, part="val", seed=settings.split_seed, most=settings.images, offers_all=False
    )


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


def _judged(
    file: Path, target: Target, gate: DetectorGate, settings: DetectExportSettings, reference: TimedFile
) -> DetectorGateResult:
    tolerance = settings.tolerance(target.kind)
    suppression: Suppression | None = None

    def compared(file: Path) -> tuple[DetectorComparison, tuple[str, ...]]:
        nonlocal suppression
        with contextlib.closing(load_exported(file)) as detector:
            suppression = detector.suppression
            comparison = gate.compare(detector, tolerance)
        return comparison, judge_detector(comparison, tolerance)

    comparison, record = judged(file, target, compared, reference=reference, speed_s=settings.speed_s)
    return DetectorGateResult(**record, suppression=suppression, comparison=comparison, tolerance=tolerance)
