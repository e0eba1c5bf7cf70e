"""`mnas latency`: how long architectures take on this machine."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from mnas.arch import Arch
from mnas.cli.scaling import at_width, input_sizes, width_multipliers
from mnas.latency.host import host_unit
from mnas.latency.latency import Calibration, Latency, MeasurementError, Setup
from mnas.latency.protocol import calibrate, make_reference, measure
from mnas.latency.unit import Unit
from mnas.names import searched_as
from mnas.nn.cost import cost
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch


@dataclass(frozen=True, kw_only=True)
class _Model:
    name: str
    file: bytes
    params: int | None
    """None for a LiteRT file of which only the graph is known."""
    macs: int | None
    output_stride: int | None


@dataclass(frozen=True, kw_only=True)
class _Row:
    model: _Model
    latency: Latency
    calibration: Calibration


@dataclass(frozen=True, kw_only=True)
class LatencyCommand:
    """Measure the latency of architectures with LiteRT on this machine, as a ratio to MobileNetV2 at the same input."""

    archs: tyro.conf.Positional[tuple[str, ...]]
    """Names (mnasnet-a1, mnasnet-a1@0.5, mnasnet-small/s8), trials (runs/NAME#17), .json or .tflite files, or block
    strings."""
    input_size: str = "auto"
    """Side of the square image in pixels, or several: 96,128,160; auto: a trial's own, 224 for others; a .tflite file
    has its own."""
    width_multiplier: str = "1"
    """Measure each architecture this many times as wide, or at several widths: 0.35,0.5,1."""
    classes: int | Literal["auto"] = "auto"
    """Outputs of the classifier; auto: a trial's own, 1000 for others; a .tflite file has its own."""
    threads: int = 1
    """Threads of the runtime."""
    budget_s: float = 3.0
    """At most this many seconds for each architecture."""
    interval: float = 0.01
    """Stop earlier when the ratio is known to plus or minus this share, with 95 % confidence."""
    json: bool = False
    """Print one JSON object a line instead of a table."""

    def run(self) -> None:
        """Measure all and print them. Raises ValueError for a name that is none or a file that cannot be read."""
        if not self.archs:
            raise ValueError("name at least one architecture, as in mnas latency mnasnet-a1")
        sizes, widths = input_sizes(self.input_size), width_multipliers(self.width_multiplier)
        files = [name for name in self.archs if name.endswith(".tflite")]
        if files and (len(sizes) > 1 or widths != (1,)):
            raise ValueError(f"a .tflite file has its one size and width, but got {files[0]!r} with a list of them")
        tasks = [searched_as(name) for name in self.archs if name not in files] or [(224, 1000)]
        sizes = sizes or (_the_one("--input-size", "auto", [size for size, _ in tasks]),)
        classes = _the_one("--classes", self.classes, [count for _, count in tasks])
        scaled: dict[str, Arch | None] = {}  # None: a .tflite file
        for name in self.archs:
            scaled |= {name: None} if name in files else dict(at_width(name, width) for width in widths)
        for size in sizes:
            for arch in scaled.values():
                if arch is not None:
                    cost(arch, size, classes)  # what cannot be is said before anything takes its time
        console = Console()
        measured: list[_Row] = []
        with console.status("calibrating", spinner="line") as status, contextlib.closing(host_unit()) as unit:
            for size in sizes:
                status.update(f"calibrating at {size} px")
                measured += self._measure(unit, scaled, size, classes, status)
        if self.json:
            for row in measured:
                print(json.dumps(_values(row)))
        else:
            _print_table(console, measured)

    def _measure(
        self, unit: Unit, scaled: dict[str, Arch | None], input_size: int, classes: int, status: Status
    ) -> list[_Row]:
        """All architectures at one input size, against a reference calibrated at it."""
        models = [_model(name, arch, input_size, classes) for name, arch in scaled.items()]
        strides = [m.output_stride for m in models if m.output_stride is not None]
        # the reference gives up resolution as the first architecture does, so that both are of one kind
        name = f"mobilenetv2/s{strides[0]}" if strides and strides[0] < 32 else "mobilenetv2"
        reference = make_reference(named_arch(name), name, input_size, classes)
        calibration = calibrate(unit, reference, Setup(threads=self.threads))
        rows = []
        for model in models:
            status.update(f"measuring {model.name} at {input_size} px")
            try:
                latency = measure(
                    unit, model.file, reference, calibration, budget_s=self.budget_s, interval=self.interval
                )
            except MeasurementError as error:
                raise ValueError(f"{model.name!r}: {error}") from None
            rows.append(_Row(model=model, latency=latency, calibration=calibration))
        return rows


def _model(name: str, arch: Arch | None, input_size: int, classes: int) -> _Model:
    if arch is None:
        try:
            file = Path(name).read_bytes()
        except OSError as error:
            raise ValueError(f"model file {name!r} cannot be read: {error.strerror}") from None
        return _Model(name=name, file=file, params=None, macs=None, output_stride=None)
    whole = cost(arch, input_size, classes)
    return _Model(
        name=name,
        file=graph_bytes(arch, input_size, classes),
        params=whole.params,
        macs=whole.macs,
        output_stride=arch.output_stride,
    )


def _the_one(option: str, given: int | Literal["auto"], found: list[int]) -> int:
    """What was given, or what all architectures have in common. Raises ValueError where they have nothing in common."""
    if given != "auto":
        return given
    if len(set(found)) > 1:
        raise ValueError(f"{option} must be given where the architectures' own differ ({', '.join(map(str, found))})")
    return found[0]


def _values(row: _Row) -> dict[str, object]:
    return {
        "name": row.model.name,
        "input_size": row.calibration.input_size,
        **row.latency.to_dict(),
        "params": row.model.params,
        "macs": row.model.macs,
        "size_bytes": len(row.model.file),
        "calibration": row.calibration.to_dict(),
    }


def _print_table(console: Console, measured: list[_Row]) -> None:
    calibrations = {row.calibration.input_size: row.calibration for row in measured}
    several = len(calibrations) > 1
    table = Table(box=box.SIMPLE, padding=(0, 0 if several else 1, 0, 0))  # a column more in the same 80
    table.add_column("name", overflow="fold")
    for column in (*(["px"] if several else []), "ms", "95 %", "ratio", "raw ms", "params", "MACs", "MB"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in measured:
        model, latency = row.model, row.latency
        table.add_row(
            escape(model.name),
            *([str(row.calibration.input_size)] if several else []),
            f"{latency.latency_ms:.4g}",
            f"{latency.low_ms:.4g}-{latency.high_ms:.4g}",
            f"{latency.ratio:.4f}",
            f"{latency.raw_median_ms:.4g}",
            "" if model.params is None else f"{model.params / 1e6:.2f}M",
            "" if model.macs is None else f"{model.macs / 1e6:,.1f}M",
            f"{len(model.file) / 1e6:.2f}",
        )
    console.print(table)
    for calibration in calibrations.values():
        console.print(
            f"  ratio to {calibration.reference} at {calibration.input_size} px, "
            f"{calibration.reference_ms:.4g} ms ({calibration.low_ms:.4g}-{calibration.high_ms:.4g})",
            highlight=False,
        )
    core = "not pinned" if calibration.pinned_core is None else f"pinned to core {calibration.pinned_core}"
    console.print(
        f"  {calibration.device['runtime']}, {calibration.threads} thread(s), {core}"
        f"{', real-time priority' if calibration.realtime else ''}, {calibration.device['processor']}",
        highlight=False,
        soft_wrap=True,
    )
