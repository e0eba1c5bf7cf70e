"""The table of `mnas latency`: a row for each model in each runtime, and lines that explain the numbers."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from mnas.latency.latency import Calibration
from mnas.measure.result import LatencyResult, ModelLatency


def print_table(console: Console, result: LatencyResult) -> None:
    """Print the table, the notes on its rows, the references of the ratios, and how the models were run.

    Args:
        result: has at least one model.
    """
    rows = result.models
    calibrations = {row.calibration.input_size: row.calibration for row in rows}
    console.print(_table(rows))
    for row in rows:
        if row.notes:
            console.print(f"  {row.name}, {row.runtime}: {'; '.join(row.notes)}")
    for calibration in calibrations.values():
        console.print(f"  {_reference(calibration)}")
    console.print(f"  {_setup(result)}")
    if any(row.int8 for row in rows):
        console.print("  architectures run in int8")
    console.print(
        "  95 %: confidence interval; raw ms: plain median; MB: file size; RAM: peak memory in MB to run the model once"
    )


def _table(rows: Sequence[ModelLatency]) -> Table:
    """Return the table; columns for runtime and image size appear only where the rows differ in them."""
    has_runtimes = len({row.runtime for row in rows}) > 1
    has_sizes = len({row.calibration.input_size for row in rows}) > 1
    table = Table(box=box.SIMPLE, padding=0)  # no padding, so that all columns fit in a terminal of 80
    table.add_column("name", overflow="fold")
    if has_runtimes:
        table.add_column("runtime", no_wrap=True)
    for column in (*(["px"] if has_sizes else []), "ms", "95 %", "ratio", "raw ms", "params", "MACs", "MB", "RAM"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            *([row.runtime] if has_runtimes else []),
            *([str(row.calibration.input_size)] if has_sizes else []),
            *_numbers(row),
        )
    return table


def _numbers(row: ModelLatency) -> list[str]:
    """Return the cells from `ms` on; empty where a number is unknown."""
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


def _reference(calibration: Calibration) -> str:
    """Return the reference network of the ratios at this input size, and its latency with the 95 % interval."""
    return (
        f"ratio: multiple of the latency of {calibration.reference} at {calibration.input_size} px, fp32 in "
        f"{calibration.device['runtime']}, {calibration.reference_ms:.4g} ms "
        f"({calibration.low_ms:.4g}-{calibration.high_ms:.4g})"
    )


def _setup(result: LatencyResult) -> str:
    """Return the runtimes, the threads and the processor that the models were run with."""
    calibration = result.models[-1].calibration  # any row: one setup and one device serve all input sizes
    runtimes = dict.fromkeys(row.runtime for row in result.models)
    units = sorted({row.latency.unit for row in result.models})
    batch = "" if calibration.batch == 1 else f", batches of {calibration.batch} images"
    core = "not pinned" if calibration.pinned_core is None else f"pinned to core {calibration.pinned_core}"
    priority = ", real-time priority" if calibration.realtime else ""
    return (
        f"{', '.join(result.runtimes[name] for name in runtimes)}; "
        f"threads: {calibration.threads}{batch}, {core}{priority}; "
        f"{', '.join(units)}: {_processor(calibration.device)}"
    )


def _processor(device: Mapping[str, str | int]) -> str:
    """Return the processor of a machine or board, or the model and the system on chip of a phone."""
    return str(device["processor"]) if "processor" in device else f"{device['model']} ({device['soc']})"
