"""Run an export: write every file, compare it with the network, and only then give it its name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mnas.data.listing.class_lines import class_table_lines
from mnas.export.gate import GateResult
from mnas.export.images import RealImages, open_samples, photographs
from mnas.export.model import ExportedModel
from mnas.export.settings import ExportSettings
from mnas.export.ship import exported, make_gate, ship
from mnas.export.target import Target, out_file
from mnas.export.written import Progress, WrittenFile, WrittenFiles, reserved, write_each


@dataclass(frozen=True, kw_only=True)
class ExportedFile(WrittenFile):
    """A written file, and its comparison with the network."""

    gate: GateResult


@dataclass(frozen=True, kw_only=True)
class ExportResult(WrittenFiles):
    """The files of an export."""

    files: Sequence[ExportedFile]
    compared_on: str
    """Images that the network and the files were compared on, in words."""
    calibrated_on: str
    """Images that set the ranges of int8, in words; empty for other kinds."""


def export_model(settings: ExportSettings, model: ExportedModel, progress: Progress) -> ExportResult:
    """Export a model; one file's failure does not affect the others.

    Args:
        model: model that the settings name, from `trained_model` or `pretrained_model`.
        progress: takes the name of each step as it begins.

    Raises:
        ValueError: the weights cannot be read, a file exists already, or the images do not show the model's classes.
        ImportError: every format lacks its package.
        OSError: an image cannot be read.
    """
    info, targets = model.info, settings.targets()
    outs = [out_file(settings.out, target, model.default) for target in targets]
    with reserved(targets, outs, overwrite=settings.overwrite) as failures:
        network = model.network()
        progress("reading images")
        images, calibration, notes = _images(settings, model)
        progress("running the network")
        gate = make_gate(network, info, images, softmax=settings.softmax, speed_s=settings.speed_s)

        def written(target: Target, out: Path) -> ExportedFile:
            progress(f"writing {out.name}")
            content = exported(network, info, target, calibration)
            progress(f"comparing {out.name} with the network")
            tolerance = settings.tolerance(target.kind)
            path, result = ship(content, target, out, gate, tolerance, overwrite=settings.overwrite)
            return ExportedFile(path=path, gate=result)

        files = write_each(targets, outs, failures, written)
    return ExportResult(
        files=files,
        failures=failures,
        compared_on=images.source,
        calibrated_on="" if calibration is None else calibration.source,
        notes=(*model.notes, *notes),
    )


def _images(settings: ExportSettings, model: ExportedModel) -> tuple[RealImages, RealImages | None, tuple[str, ...]]:
    """Return the images to compare on, those to calibrate on, and notes about them."""
    info = model.info
    if settings.data is None:
        return photographs(info.input_size), None, ()
    seed = settings.split_seed
    samples = open_samples(
        settings.data,
        info,
        part=settings.part,
        seed=seed,
        beside=model.beside,
        ours=model.ours,
        data_dir=settings.data_dir,
        download=settings.download,
    )
    order = seed or samples.selection.seed or 0
    calibration = samples.calibration(info, settings.calibration_images, order) if settings.int8 else None
    return (
        samples.validation(info, settings.images, order),
        calibration,
        (*class_table_lines(samples.table, "val"), *samples.selection.notes),
    )
