"""Print the result of `mnas train RUN --top N`: the best models, and how well the proxy task predicts them."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from mnas.evaluate.baseline import NAMES
from mnas.objective import Objective
from mnas.report.html import write_report
from mnas.shortlist.table import FILE_NAME, Row, agreement, meaning
from mnas.shortlist.train import Outcome
from mnas.study import objectives_of, read_run
from mnas.study.results import metric_of
from mnas.train.folder import PAGE_NAME


def print_best(console: Console, path: Path, outcome: Outcome) -> None:
    """Print the table of the run at `path`, the best model for each target, and the paths of the files."""
    attributes = read_run(path).attributes
    name, objectives = NAMES[metric_of(attributes)], objectives_of(attributes)
    console.print(shortlist_table(outcome.rows, name))
    console.print(meaning(agreement(outcome.rows)))
    for objective in objectives:
        console.print(_advice(path, outcome.rows, objective, name, len(objectives) > 1))
    pages = f"mistakes of each model: {path / 'trained'}/TRIAL/{PAGE_NAME}"
    console.print(f"table: {path / 'trained' / FILE_NAME}; report: {write_report(path)}; {pages}")


def shortlist_table(rows: Sequence[Row], name: str = "accuracy") -> Table:
    """Return the trained trials, fastest first, the highest reward in bold; `name` is their metric."""
    tested = any(row.test_accuracy is not None for row in rows)
    has_sources = any(row.source != "measured" for row in rows)  # without sources, all were measured in this search
    names = ["trial", f"proxy {name}", name, *([f"test {name}"] if tested else [])]
    table = Table(
        *names,
        "latency (ms)",
        *(["source"] if has_sources else []),
        "95 % interval",
        "params",
        "MACs",
        "reward",
        box=box.SIMPLE,
    )
    best = max(rows, key=lambda row: row.reward)
    for row in rows:
        test = "-" if row.test_accuracy is None else f"{row.test_accuracy:.4f}"
        table.add_row(
            str(row.trial),
            f"{row.proxy_accuracy:.4f}",
            f"{row.accuracy:.4f}",
            *([test] if tested else []),
            f"{row.latency_ms:.3f}",
            *([row.source] if has_sources else []),
            f"{row.low_ms:.3f}-{row.high_ms:.3f}",
            f"{row.params / 1e6:.2f}M",
            f"{row.macs / 1e6:.1f}M",
            f"{row.reward:.4f}",
            style="bold" if row is best else "",
        )
    return table


def _advice(path: Path, rows: Sequence[Row], objective: Objective, name: str, several: bool) -> str:
    best = max(rows, key=lambda row: objective.reward(row.accuracy, row.latency_ms))
    reward = objective.reward(best.accuracy, best.latency_ms)
    model = f"{path}#{best.trial}"
    target = f"for {objective.target_latency_ms:g} ms " if several else ""
    return (
        f"{target}recommended: {best.title}, which has the best reward after full training ({reward:.4f}), {name} "
        f"{best.accuracy:.4f} at {best.latency_ms:.3f} ms; export it with mnas export {model} --to litert"
    )
