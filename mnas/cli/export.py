"""`mnas export`: a trained model as files for devices, each compared with the network before it gets its name."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rich import box
from rich.console import Console
from rich.table import Table

from mnas.atomic import claimed
from mnas.cli.console import make_console
from mnas.cli.quiet import runtimes_quiet
from mnas.data.listing.class_lines import class_table_lines
from mnas.export.gate import TOLERANCES, GateResult, Kind, Tolerance
from mnas.export.images import RealImages, open_samples, photographs
from mnas.export.ship import REPORT_SUFFIX, Target, exported, make_gate, require_packages, ship
from mnas.formats import ExportName
from mnas.metadata import ModelMetadata
from mnas.names import resolve_weights
from mnas.nn.weights import load_weights
from mnas.nn.weights_info import read_weights_info
from mnas.study.check import one_line
from mnas.train.split_seed import seed_beside

Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Export a trained model to LiteRT, ONNX or ExecuTorch; a file that differs from the network is put aside."""

    model: str = dataclasses.field(kw_only=False)
    """A .safetensors file of ours, the folder of a training, or a trial with weights (runs/NAME#17)."""
    to: str
    """litert, onnx or executorch; several separated by commas."""
    int8: bool = False
    """LiteRT in integers, a quarter of the size; calibrated on training images, so it needs --data."""
    fp16: bool = False
    """LiteRT with float16 kernels, half of the size."""
    integer_io: bool = False
    """With --int8: int8 input and output too, for microcontrollers and accelerators without floats."""
    softmax: bool = False
    """LiteRT: probabilities instead of logits, as ML Kit and MediaPipe expect."""
    out: Path | None = None
    """The file to write, or a folder; not given: beside the model (a trial's: here), named as it is."""
    overwrite: bool = False
    """Replace a file that is there already (a failed export never does)."""

    data: str | None = None
    """The data set the model was trained on: digits, cifar10, fashion-mnist, imagenet or a folder; without it files are
    compared on two photographs."""
    data_dir: Path | None = None
    """Where cifar10, fashion-mnist and imagenet lie; not given: in the cache folder."""
    download: bool = False
    """Download cifar10 or fashion-mnist if they are missing."""
    calibration_images: int = 200
    """How many training images --int8 takes the activations' ranges from."""
    images: int = 1000
    """How many validation images network and file are compared on; 0: all."""
    part: Literal["auto", "all"] = "auto"
    """Images to compare on; auto: those that the training held out, or the data's own validation part; all: any image,
    for data that the model was not trained on."""
    seed: int | Auto = "auto"
    """Seed that draws the held-out images where the data has none of its own; auto: the one in the model file,
    else in the settings of its run or training."""

    max_difference: float | Auto = "auto"
    """Largest difference of the outputs that passes, as a share of the largest; auto: 1e-4, fp16 0.05, int8 any."""
    min_agreement: float | Auto = "auto"
    """Share of the images with the same first class; auto: 0.995, fp16 0.98, int8 0.85."""
    max_accuracy_loss: float | Auto = "auto"
    """Loss of accuracy that passes; auto: 0.0005, fp16 0.005, int8 0.01."""
    speed_s: float = 3.0
    """Seconds of measuring for each file; 0: do not measure."""

    def __post_init__(self) -> None:
        targets = self.targets()  # its checks come before any work
        if self.int8 and self.data is None:
            raise ValueError("calibration needs images, but got --int8 without --data; give the training's data set")
        if len(targets) > 1 and self.out is not None and not self.out.is_dir():
            raise ValueError(f"--out must be a folder for several files, but got {str(self.out)!r}, which is none")
        for name, low in (("calibration_images", 1), ("images", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name.replace('_', ' ')} must be {low} or more, but got {getattr(self, name)}")
        if self.seed != "auto" and self.seed < 0:
            raise ValueError(f"--seed must be auto, or 0 or more, but got {self.seed}")
        for field in dataclasses.fields(Tolerance):
            value = getattr(self, field.name)
            if value != "auto" and not value >= 0:
                raise ValueError(f"{field.name.replace('_', ' ')} must be 0 or more, but got {value}")
            if value != "auto" and field.name != "max_difference" and value > 1:
                name = field.name.replace("_", " ")
                raise ValueError(f"{name} must be a share from 0 to 1 (0.01 is one point), but got {value}")
        if not 0 <= self.speed_s < math.inf:
            raise ValueError(f"speed s must be 0 (not measured) or more, but got {self.speed_s}")

    def targets(self) -> list[Target]:
        """The files to make. Raises ValueError for options that do not go together."""
        names = list(dict.fromkeys(name.strip() for name in self.to.split(",")))
        for name in names:
            if name not in get_args(ExportName):
                raise ValueError(f"--to must be one or more of {', '.join(get_args(ExportName))}, but got {name!r}")
        if self.int8 and self.fp16:
            raise ValueError("a file must be --int8 or --fp16, but got both; export twice")
        if self.integer_io and not self.int8:
            raise ValueError("--integer-io must come with --int8, but got it alone")
        for option in ("int8", "fp16", "softmax"):
            if getattr(self, option) and names != ["litert"]:
                raise ValueError(f"--{option} must be for --to litert alone, but got --to {self.to}; export twice")
        kind: Kind = "int8" if self.int8 else "fp16" if self.fp16 else "fp32"
        return [
            Target(format=name, kind=kind, softmax=self.softmax, integer_io=self.integer_io)  # type: ignore[arg-type]
            for name in names
        ]

    def run(self) -> None:
        """Export all, print what was found, and raise ValueError if a file failed; one failure leaves the others."""
        path = resolve_weights(self.model)
        info = read_weights_info(path)
        targets = self.targets()
        outs = [self._out(path, target) for target in targets]
        failed = _missing_packages(targets, outs)
        network = load_weights(path)
        console = make_console()
        made: list[tuple[Path, GateResult]] = []
        with claimed(outs, "--out"), console.status("reading images", spinner="line") as status, runtimes_quiet():
            for out in outs:
                self._require_new(out)  # the process that had claimed it may have made it
            images, calibration, notes = self._images(path, info)
            status.update("asking the network")
            gate = make_gate(network, info, images, softmax=self.softmax, speed_s=self.speed_s)
            for target, out in zip(targets, outs, strict=True):
                if out in failed:
                    continue
                try:
                    status.update(f"writing {out.name}")
                    content = exported(network, info, target, calibration)
                    status.update(f"comparing {out.name} with the network")
                    tolerance = self._tolerance(target.kind)
                    made.append(ship(content, target, out, gate, tolerance, overwrite=self.overwrite))
                except Exception as error:  # of any kind: the other files are exported before it is reported
                    failed[out] = one_line(error if isinstance(error, _USERS) else repr(error))
        if made:
            _print(console, [result for _, result in made], images, calibration)
        for note in notes:
            console.print(f"  {note}")
        for file, result in made:
            if result.passed:
                console.print(f"  exported to {file}, the table to {file}{REPORT_SUFFIX}")
        told = [f"{'; '.join(r.failures)}: kept aside as {str(file)!r}" for file, r in made if not r.passed]
        told += [f"{out.name} was not written: {reason}" for out, reason in failed.items()]
        if told:
            raise ValueError("; ".join(told))

    def _out(self, weights: Path, target: Target) -> Path:
        trial = self.model.rpartition("#")
        if not Path(self.model).exists() and trial[1]:  # a run's folder is the run's
            folder, stem = Path(), f"{Path(trial[0]).name}-{trial[2]}"
        else:
            folder, stem = weights.parent, weights.stem
        name = f"{stem}{target.suffix}"
        given = folder if self.out is None else self.out
        out = given / name if self.out is None or given.is_dir() else given
        if out.suffix != Path(name).suffix:
            raise ValueError(f"--out must end in {Path(name).suffix} for {target.format}, but got {str(out)!r}")
        if not out.parent.is_dir():
            raise ValueError(f"--out must be in a folder that exists, but got {str(out)!r}")
        self._require_new(out)
        return out

    def _require_new(self, out: Path) -> None:
        for path in (out, Path(f"{out}{REPORT_SUFFIX}"), Path(f"{out}.json")):
            if path.exists() and not self.overwrite:
                raise ValueError(f"--out must be new, but {str(path)!r} exists; choose another or give --overwrite")

    def _images(self, path: Path, info: ModelMetadata) -> tuple[RealImages, RealImages | None, tuple[str, ...]]:
        """Return the images to compare on, those to calibrate on, and notes about them."""
        if self.data is None:
            return photographs(info.input_size), None, ()
        seed = None if self.seed == "auto" else self.seed
        samples = open_samples(
            self.data,
            info,
            part=self.part,
            seed=seed,
            beside=seed_beside(path),
            data_dir=self.data_dir,
            download=self.download,
        )
        selection = samples.selection
        order = seed or selection.seed or 0
        calibration = samples.calibration(info, self.calibration_images, order) if self.int8 else None
        return (
            samples.validation(info, self.images, order),
            calibration,
            (*class_table_lines(samples.table, "val"), *selection.notes),
        )

    def _tolerance(self, kind: Kind) -> Tolerance:
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(Tolerance)}
        return dataclasses.replace(TOLERANCES[kind], **{name: v for name, v in given.items() if v != "auto"})


_USERS = (ValueError, OSError, ImportError, RuntimeError, MemoryError)
"""Errors whose message needs no type before it."""


def _missing_packages(targets: Sequence[Target], outs: Sequence[Path]) -> dict[Path, str]:
    """Return file -> missing package, before any work. Raises ImportError where every file lacks one."""
    failed = {}
    for target, out in zip(targets, outs, strict=True):
        try:
            require_packages(target)
        except ImportError as error:
            failed[out] = str(error)
    if len(failed) == len(targets):
        raise ImportError("; ".join(dict.fromkeys(failed.values())))
    return failed


def _print(console: Console, results: list[GateResult], images: RealImages, calibration: RealImages | None) -> None:
    """A column for each file, a row for each thing that was found."""
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("")
    for result in results:
        table.add_column(result.file, overflow="fold", justify="right")
    table.add_column("allowed")
    columns, allowed = [_cells(result) for result in results], _allowed(results[0].tolerance)
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(column.get(name, "") for column in columns), allowed.get(name, ""))
    table.add_row("gate", *("passed" if result.passed else "FAILED" for result in results))
    console.print(table)
    console.print(f"  compared with the network on {images.source}")
    if calibration is not None:
        console.print(f"  calibrated on {calibration.source}")
    if timed := [r.speed for r in results if r.speed is not None]:
        console.print(f"  one thread, batch 1; the fp32 LiteRT file takes {timed[0].reference_ms:.4g} ms")


def _cells(result: GateResult) -> dict[str, str]:
    found, speed = result.comparison, result.speed
    cells = {"size, MB": f"{result.size_bytes / 1e6:.2f}"}
    if found is not None:
        cells["max difference"] = f"{found.max_difference:.1e}"
        cells["mean difference"] = f"{found.mean_difference:.1e}"
        cells["same top-1"] = f"{found.agreement:.2%}"
        if found.accuracy is not None and found.torch_accuracy is not None:
            cells["accuracy"] = f"{found.accuracy:.2%}"
            cells["torch's"] = f"{found.torch_accuracy:.2%}"
            cells["majority share"] = "" if found.majority_share is None else f"{found.majority_share:.2%}"
    if speed is not None:
        cells["latency, ms"] = f"{speed.latency_ms:.4g} {_interval(speed.low_ms, speed.latency_ms, speed.high_ms)}"
        cells["/ LiteRT fp32"] = f"{speed.ratio:.3f} {_interval(speed.ratio_low, speed.ratio, speed.ratio_high)}"
    return cells


def _allowed(tolerance: Tolerance) -> dict[str, str]:
    """All files of a command are of one kind, so there is one set of limits."""
    return {
        "max difference": f"{tolerance.max_difference:g}" if math.isfinite(tolerance.max_difference) else "any",
        "same top-1": f"{tolerance.min_agreement:.1%}",
        "accuracy": f"{-100 * tolerance.max_accuracy_loss:g} points",
    }


def _interval(low: float, value: float, high: float) -> str:
    """Half of the 95 % interval in per cent of the value; nothing where the value is exact."""
    return f"±{50 * (high - low) / value:.1f}%" if high > low else ""
