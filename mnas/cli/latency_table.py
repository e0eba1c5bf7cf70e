"""The table that `mnas latency` prints: all models in all runtimes."""

from rich import box
from rich.console import Console
from rich.table import Table

from mnas.measure.result import LatencyResult, ModelLatency


def print_table(console: Console, result: LatencyResult) -> None:
    """Print the table, notes on rows that need them, and what the numbers are multiples of."""
    rows, runtimes = result.models, result.runtimes
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


def _numbers(row: ModelLatency) -> list[str]:
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
