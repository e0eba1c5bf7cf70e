"""What `mnas latency` prints: one table with all models in all runtimes, or a JSON object for each."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from mnas.latency.latency import Calibration, Latency

MUCH_DRIFT, MUCH_DISTURBED = 0.1, 0.5
"""From there on a row has a note."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model, measured."""

    name: str
    runtime: str
    int8: bool
    """Whether an architecture was measured in int8; a file is what it is."""
    params: int | None
    """None for a file of which only the graph is known."""
    macs: int | None
    size_bytes: int
    latency: Latency
    calibration: Calibration
    """Of the reference that it is a multiple of, perhaps in another runtime."""

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "runtime": self.runtime,
            "int8": self.int8,
            "input_size": self.calibration.input_size,
            **self.latency.to_dict(),
            "params": self.params,
            "macs": self.macs,
            "size_bytes": self.size_bytes,
            "calibration": self.calibration.to_dict(),
        }

    @property
    def notes(self) -> list[str]:
        """What was not as it should be while it was measured."""
        latency, found = self.latency, []
        if abs(latency.drift) > MUCH_DRIFT:
            found.append(
                f"{latency.unit} ran the reference {100 * abs(latency.drift):.0f} % "
                f"{'slower' if latency.drift > 0 else 'faster'} than at its calibration"
            )
        if latency.disturbed > MUCH_DISTURBED:
            found.append(f"{100 * latency.disturbed:.0f} % of the rounds were disturbed by something else")
        if latency.source == "cached":
            found.append("measured earlier; --fresh measures again")
        return found


def print_table(console: Console, rows: Sequence[Row], runtimes: dict[str, str]) -> None:
    """The table, notes on rows that need them, and what the numbers are multiples of.

    Args:
        runtimes: name -> with its version, as the device tells.
    """
    calibrations = {row.calibration.input_size: row.calibration for row in rows}
    by_runtime, by_size = len({row.runtime for row in rows}) > 1, len(calibrations) > 1
    table = Table(box=box.SIMPLE, padding=0)  # all in 80 columns
    table.add_column("name", overflow="fold")
    if by_runtime:
        table.add_column("runtime", no_wrap=True)
    for column in (*(["px"] if by_size else []), "ms", "95 %", "ratio", "raw ms", "params", "MACs", "MB", "RAM"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            *([row.runtime] if by_runtime else []),
            *([str(row.calibration.input_size)] if by_size else []),
            *_numbers(row),
        )
    console.print(table)
    for row in rows:
        if row.notes:
            console.print(f"  {row.name}, {row.runtime}: {'; '.join(row.notes)}")
    for calibration in calibrations.values():
        console.print(
            f"  ratio to {calibration.reference} at {calibration.input_size} px, fp32 in "
            f"{calibration.device['runtime']}, "
            f"{calibration.reference_ms:.4g} ms ({calibration.low_ms:.4g}-{calibration.high_ms:.4g})",
        )
    core = "not pinned" if calibration.pinned_core is None else f"pinned to core {calibration.pinned_core}"
    batch = "" if calibration.batch == 1 else f", {calibration.batch} images at once"
    console.print(
        f"  {', '.join(runtimes[name] for name in dict.fromkeys(row.runtime for row in rows))}; "
        f"{calibration.threads} thread(s){batch}, {core}"
        f"{', real-time priority' if calibration.realtime else ''}; "
        f"{', '.join(sorted({row.latency.unit for row in rows}))}: {calibration.device['processor']}",
    )
    if any(row.int8 for row in rows):
        console.print("  architectures in int8")
    console.print("  MB: of the file; RAM: megabytes to load it and run it once, at most")


def _numbers(row: Row) -> list[str]:
    latency = row.latency
    memory = latency.peak_memory_bytes
    return [
        f"{latency.latency_ms:.4g}",
        f"{latency.low_ms:.4g}-{latency.high_ms:.4g}",
        f"{latency.ratio:.4f}",
        f"{latency.raw_median_ms:.4g}",
        "" if row.params is None else f"{row.params / 1e6:.2f}M",
        "" if row.macs is None else f"{row.macs / 1e6:,.1f}M",
        f"{row.size_bytes / 1e6:.2f}",
        "" if memory is None else f"{memory / 1e6:.1f}",
    ]
