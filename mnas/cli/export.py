"""`mnas export`: write a trained model as files for devices, each compared with the network before it gets its name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table

from mnas.cli.console import make_console
from mnas.cli.quiet import runtimes_quiet
from mnas.export.settings import ExportSettings
from mnas.export.target import Tolerance

if TYPE_CHECKING:
    from mnas.export.detector.gate import DetectorGateResult
    from mnas.export.gate import GateResult
    from mnas.export.run import ExportResult
    from mnas.export.timing import Speed


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Export a trained model to LiteRT, ONNX or ExecuTorch, and compare each file with the network. A file that fails
    this verification is quarantined under another name (NAME.failed.tflite)."""

    settings: Annotated[ExportSettings, Parameter(name="*")]
    """The export."""

    def run(self) -> None:
        """Export all files, print the comparisons, and raise ValueError if a file failed; the other files remain."""
        from mnas.api.export import open_exported  # torch takes seconds to import, and the help does not need it
        from mnas.export.run import export_model

        model = open_exported(self.settings)
        console = make_console()
        with console.status("reading images", spinner="line") as status, runtimes_quiet():
            result = export_model(self.settings, model, status.update)
        _print(console, result)
        result.require_all()


def _print(console: Console, result: "ExportResult") -> None:
    if result.files:
        gates = [file.gate for file in result.files]
        console.print(gate_table(gates, list(map(_cells, gates)), _allowed(gates[0].tolerance)))
        console.print(f"  compared with the network on {result.compared_on}")
        if result.calibrated_on:
            console.print(f"  calibrated on {result.calibrated_on}")
        if line := speed_line([file.gate.speed for file in result.files]):
            console.print(line)
    for note in result.notes:
        console.print(f"  {note}")
    for file in result.files:
        if file.gate.passed:
            console.print(f"  wrote {file.path}, and this table as {file.report}")


def gate_table(
    results: "Sequence[GateResult | DetectorGateResult]",
    columns: Sequence[Mapping[str, str]],
    allowed: Mapping[str, str],
) -> Table:
    """Return a column for each file, a row for each figure.

    Args:
        columns: figure -> its text, for each result.
        allowed: figure -> its limit; all files of a command are of one kind, so there is one set.
    """
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("")
    for result in results:
        table.add_column(result.file, overflow="fold", justify="right")
    table.add_column("allowed")
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(column.get(name, "") for column in columns), allowed.get(name, ""))
    table.add_row("gate", *("passed" if result.passed else "FAILED" for result in results))
    return table


def _cells(result: "GateResult") -> dict[str, str]:
    comparison = result.comparison
    cells = {"size, MB": f"{result.size_bytes / 1e6:.2f}"}
    if comparison is not None:
        cells["max difference"] = f"{comparison.max_difference:.1e}"
        cells["mean difference"] = f"{comparison.mean_difference:.1e}"
        cells["same top-1"] = f"{comparison.agreement:.2%}"
        if comparison.accuracy is not None and comparison.torch_accuracy is not None:
            cells["accuracy"] = f"{comparison.accuracy:.2%}"
            cells["accuracy in torch"] = f"{comparison.torch_accuracy:.2%}"
            cells["majority share"] = "" if comparison.majority_share is None else f"{comparison.majority_share:.2%}"
    return cells | speed_cells(result.speed)


def speed_cells(speed: "Speed | None") -> dict[str, str]:
    """Return the figures of a file's speed; none without it."""
    if speed is None:
        return {}
    return {
        "latency, ms": f"{speed.latency_ms:.4g} {_interval(speed.low_ms, speed.latency_ms, speed.high_ms)}",
        "ratio to LiteRT fp32": f"{speed.ratio:.3f} {_interval(speed.ratio_low, speed.ratio, speed.ratio_high)}",
    }


def _allowed(tolerance: Tolerance) -> dict[str, str]:
    """Return the limits."""
    return {
        "max difference": f"{tolerance.max_difference:g}" if math.isfinite(tolerance.max_difference) else "any",
        "same top-1": f"{tolerance.min_agreement:.1%}",
        "accuracy": f"{-100 * tolerance.max_accuracy_loss:g} points",
    }


def speed_line(speeds: "Sequence[Speed | None]") -> str:
    """Return a line about the reference of the speeds; empty without speeds."""
    measured = [speed for speed in speeds if speed is not None]
    if not measured:
        return ""
    return f"  latency on one thread at batch 1; the fp32 LiteRT file takes {measured[0].reference_ms:.4g} ms"


def _interval(low: float, value: float, high: float) -> str:
    """Return half of the 95 % interval in per cent of the value; empty for an exact value."""
    return f"±{50 * (high - low) / value:.1f}%" if high > low else ""
