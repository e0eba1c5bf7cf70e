"""`mnas runs`: list the runs of a directory with their states."""

import datetime
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from mnas.cli.console import make_console, say
from mnas.study import RunError, Snapshot, count_imported, front_of, is_trained, read_run
from mnas.study.results import results_of


@dataclass(frozen=True, kw_only=True)
class RunsCommand:
    """List the runs in a folder, each with its state, trials and imported trials, best reward, and size of the Pareto
    front."""

    directory: Path = field(default=Path("runs"), kw_only=False)
    """Folder of the runs."""

    def run(self) -> None:
        """Print the table."""
        if not self.directory.is_dir():
            raise ValueError(f"DIRECTORY must be a folder that contains runs, but got {self.directory}")
        paths = sorted(p.parent for p in self.directory.glob("*/study.db"))
        if not paths:
            say(f"no runs in {self.directory}; `mnas search --run {self.directory}/NAME` starts one")
            return
        table = Table(
            "run", "state", "trials", "failed", "skipped", "best reward", "front", "trained", "data", "last change"
        )
        unreadable = []
        for path in paths:
            try:
                table.add_row(str(path), *_row(read_run(path)))
            except RunError as error:
                table.add_row(str(path), "unreadable")
                unreadable.append(f"unreadable: {error}")
        console = make_console()
        console.print(table)
        for line in unreadable:
            console.print(line)


def _row(run: Snapshot) -> list[str]:
    imported = count_imported(run.trials)
    states = [t.state for t in run.trials[imported:]]
    results = results_of(run)
    rewards = {t.label: t.reward for t in results if t.state == "complete" and t.reward is not None}
    best = max(rewards, key=lambda label: rewards[label], default=None)
    state = run.state
    changed = datetime.datetime.fromtimestamp(
        max(run.path.glob("study.db*"), key=lambda p: p.stat().st_mtime).stat().st_mtime
    )
    return [
        f"{state.status} ({state.reason})" if state.reason else state.status,
        f"{sum(s != 'running' for s in states)}" + (f" (+{imported})" if imported else ""),
        str(states.count("failed")),
        str(states.count("skipped")),
        "" if best is None else f"{rewards[best]:.4f}" + ("" if best.isdecimal() else f" ({best})"),
        str(len(front_of(results))),
        str(sum(is_trained(run.path, t.label) for t in results) or ""),
        str(run.attributes["config"].get("data", "")),
        f"{changed:%Y-%m-%d %H:%M}",
    ]
