"""A finished, running or interrupted search, from Python."""

import html
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnas.report.facts import facts_of
from mnas.report.figures import figures
from mnas.report.html import write_report
from mnas.study import Snapshot, TrialRecord, front_of, objectives_of, read_run
from mnas.study.results import find_result, images_behind, recommend, references_of, results_of

if TYPE_CHECKING:
    import plotly.graph_objects

_COLUMNS = ("trial", "accuracy", "latency ms", "params", "MACs", "reward")


class Trials(tuple[TrialRecord, ...]):
    """Records of trials, in order."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return each record as plain values, ready for JSON or `pandas.DataFrame`."""
        return [record.to_dict() for record in self]

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "no trials"

    def _repr_html_(self) -> str:
        return _table(self)


class Run:
    """The search in a folder. Each use reads the study again, so that a running search can be watched.

    Raises ValueError if the folder contains no run, or a damaged one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._snapshot()

    def _snapshot(self) -> Snapshot:
        return read_run(self.path)

    @property
    def status(self) -> str:
        """State of the search: running, finished, stopped or interrupted."""
        return self._snapshot().state.status

    @property
    def trials(self) -> Trials:
        """All trials, by number."""
        return Trials(self._snapshot().trials)

    @property
    def front(self) -> Trials:
        """Pareto front of trials and reference networks, fastest first."""
        return Trials(front_of(results_of(self._snapshot())))

    @property
    def best(self) -> TrialRecord:
        """Recommended result: the trial with the highest reward on the front, or a better reference network.

        Raises:
            ValueError: no candidate has been trained yet.
        """
        run = self._snapshot()
        objectives = objectives_of(run.attributes)
        images = images_behind(run, int(run.attributes.get("provenance", {}).get("data", {}).get("val_images", 0)))
        choice = recommend(run.trials, references_of(run), objectives[0], images) if objectives else None
        if choice is None:
            raise ValueError(f"{self.path} has no trained candidate yet")
        return choice.best

    def name_of(self, trial: TrialRecord | int | str) -> str:
        """Return the name of a result, such as runs/photos#17, which functions and commands accept as a network.

        Args:
            trial: a record, a trial's number, or a reference network's name.

        Raises:
            ValueError: the run has no such result.
        """
        label = trial.label if isinstance(trial, TrialRecord) else str(trial)
        return f"{self.path}#{find_result(self._snapshot(), label).label}"

    def plot(self) -> "plotly.graph_objects.Figure":
        """Return a Plotly figure of accuracy against latency of all results, with the front and the target.

        Raises:
            ValueError: no candidate has been trained yet.
        """
        import plotly.graph_objects

        charts = figures(facts_of(self._snapshot()))
        if "scatter" not in charts:
            raise ValueError(f"{self.path} has no trained candidate yet")
        return plotly.graph_objects.Figure(charts["scatter"])

    def report(self) -> Path:
        """Write report.html, which works offline, and return its path."""
        return write_report(self.path)

    def __repr__(self) -> str:
        run = self._snapshot()
        return f"Run({str(self.path)!r}): {run.state.status}, {len(run.trials)} trials, {len(self.front)} on the front"

    def _repr_html_(self) -> str:
        run = self._snapshot()
        line = f"{self.path}: {run.state.status}, {len(run.trials)} trials; Pareto front:"
        return f"<p>{html.escape(line)}</p>{_table(self.front)}"


def open_run(path: str | Path) -> Run:
    """Return the search in a folder, even while it is running in another process.

    Raises:
        ValueError: the folder contains no run, or a damaged one.

    Examples:
        >>> run = mnas.open_run("runs/digits")
        >>> run.status
        'finished'
        >>> len(run.trials)
        4
    """
    return Run(path)


def _table(records: Iterable[TrialRecord]) -> str:
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in _cells(r))}</tr>" for r in records)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(record: TrialRecord) -> tuple[str, ...]:
    return (
        record.label,
        record.state if record.accuracy is None else f"{record.accuracy:.4f}",
        "" if record.latency_ms is None else f"{record.latency_ms:.3f}",
        f"{record.params / 1e6:.2f}M",
        f"{record.macs / 1e6:.1f}M",
        "" if record.reward is None else f"{record.reward:.4f}",
    )
