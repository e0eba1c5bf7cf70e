"""Run an export: write every file, compare it with the network, and only then give it its name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mnas.atomic import claimed
from mnas.data.listing.class_lines import class_table_lines
from mnas.export.gate import GateResult
from mnas.export.images import RealImages, open_samples, photographs
from mnas.export.model import ExportedModel
from mnas.export.packages import missing_packages
from mnas.export.place import REPORT_SUFFIX, require_new
from mnas.export.settings import ExportSettings
from mnas.export.ship import exported, make_gate, ship
from mnas.export.target import out_file
from mnas.text import message_of

CLEAR_ERRORS = (ValueError, OSError, ImportError, RuntimeError, MemoryError)
"""Errors whose message is clear without the type."""
REASON_CHARS = 400

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A written file, and its comparison with the network."""

    path: Path
    gate: GateResult

    @property
    def report(self) -> Path:
        """Return the path of the file beside it that contains the comparison."""
        return Path(f"{self.path}{REPORT_SUFFIX}")


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """The files of an export."""

    files: tuple[ExportedFile, ...]
    """Written files; those that failed the comparison have another name than requested."""
    failures: Mapping[Path, str]
    """File that could not be written -> reason."""
    compared_on: str
    """Images that the network and the files were compared on, in words."""
    calibrated_on: str
    """Images that set the ranges of int8, in words; empty for other kinds."""
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
    for out in outs:
        require_new(out, overwrite=settings.overwrite)
    failures = missing_packages(targets, outs)
    network = model.network()
    files: list[ExportedFile] = []
    with claimed(outs, "--out"):
        for out in outs:  # another process may have written them before its claim ended
            require_new(out, overwrite=settings.overwrite)
        progress("reading images")
        images, calibration, notes = _images(settings, model)
        progress("running the network")
        gate = make_gate(network, info, images, softmax=settings.softmax, speed_s=settings.speed_s)
        for target, out in zip(targets, outs, strict=True):
            if out in failures:
                continue
            try:
                progress(f"writing {out.name}")
                content = exported(network, info, target, calibration)
                progress(f"comparing {out.name} with the network")
                tolerance = settings.tolerance(target.kind)
                path, result = ship(content, target, out, gate, tolerance, overwrite=settings.overwrite)
                files.append(ExportedFile(path=path, gate=result))
            except Exception as error:  # whatever fails, the other files are exported first
                failures[out] = message_of(error if isinstance(error, CLEAR_ERRORS) else repr(error), REASON_CHARS)
    return ExportResult(
        files=tuple(files),
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
    seed = None if settings.seed == "auto" else settings.seed
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
