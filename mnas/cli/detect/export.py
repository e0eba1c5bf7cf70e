"""`mnas detect export`: write a trained detector as files for devices, each compared with the network."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from mnas.cli.console import make_console
from mnas.cli.export import gate_table, speed_cells, speed_line
from mnas.cli.quiet import runtimes_quiet
from mnas.export.detector.settings import DetectExportSettings
from mnas.export.detector.tolerance import DetectorTolerance

if TYPE_CHECKING:
    from mnas.export.detector.gate import DetectorGateResult
    from mnas.export.detector.run import DetectorExport


@dataclass(frozen=True, kw_only=True)
class DetectExportCommand:
    """Export a trained detector to LiteRT or ONNX, and compare each file with the network. A file that fails this
    verification is quarantined under another name (NAME.failed.tflite)."""

    settings: Annotated[DetectExportSettings, Parameter(name="*")]
    """The export."""

    def run(self) -> None:
        """Export all files, print the comparisons, and raise ValueError if a file failed; the other files remain."""
        from mnas.export.detector.run import export_detector  # torch takes seconds to import
        from mnas.names import resolve_weights

        weights = resolve_weights(self.settings.model, by="mnas detect train")
        console = make_console()
        with console.status("reading the detector", spinner="line") as status, runtimes_quiet():
            result = export_detector(self.settings, weights, status.update)
        _print(console, result)
        result.require_all()


def _print(console: Console, result: "DetectorExport") -> None:
    gates = [file.gate for file in result.files]
    if gates:
        console.print(gate_table(gates, list(map(_cells, gates)), _allowed(gates[0].tolerance)))
        if comparison := next((gate.comparison for gate in gates if gate.comparison), None):
            console.print(f"  compared with the network on {comparison.source}")
        if line := speed_line([gate.speed for gate in gates]):
            console.print(line)
    for note in result.notes:
        console.print(f"  {note}")
    for file in result.files:
        if file.gate.passed:
            console.print(f"  wrote {file.path}, and this table as {file.report}")


def _cells(result: "DetectorGateResult") -> dict[str, str]:
    comparison = result.comparison
    cells = {"size, MB": f"{result.size_bytes / 1e6:.2f}"}
    if comparison is not None:
        cells["objects"] = f"{comparison.objects:,}"
        cells["same objects"] = f"{comparison.agreement:.2%}"
        if comparison.mean_precision is not None and comparison.torch_mean_precision is not None:
            cells["mAP"] = f"{comparison.mean_precision:.2%}"
            cells["mAP in torch"] = f"{comparison.torch_mean_precision:.2%}"
            if result.suppression is not None and comparison.recorded_mean_precision is not None:
                cells["mAP of all boxes"] = f"{comparison.recorded_mean_precision:.2%}"
    return cells | speed_cells(result.speed)


def _allowed(tolerance: DetectorTolerance) -> dict[str, str]:
    """Return the limits."""
    return {
        "same objects": f"{tolerance.min_agreement:.0%}" if tolerance.min_agreement else "any",
        "mAP": f"{-100 * tolerance.max_precision_loss:g} points",
    }
