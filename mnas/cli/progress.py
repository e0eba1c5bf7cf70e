"""How a search looks: a live line in a terminal, plain lines elsewhere; the report is written after updates."""

import contextlib
import datetime
import math
import time
from collections.abc import Callable, Iterator

import rich.progress
from rich.console import Console

from mnas.cli.console import FieldColumn
from mnas.report.html import write_snapshot_report
from mnas.search.progress import Progress, Watcher
from mnas.study import Snapshot, StudyWriter


def _duration(seconds: float) -> str:
    return "-" if math.isnan(seconds) else str(datetime.timedelta(seconds=max(0, round(seconds))))


def _line(p: Progress) -> str:
    reward = "-" if math.isnan(p.best_reward) else f"{p.best_reward:.4f}"
    others = "".join(f"  {count} {what}" for count, what in ((p.failed, "failed"), (p.pruned, "skipped")) if count)
    return f"best reward {reward}  front {p.front_size}{others}  ETA {_duration(p.eta_s)}  {p.activity}"


REPORT_SHARE = 0.05
"""At most this much of the time goes to the report, which of thousands of trials takes seconds to write."""


class _Reporting(Watcher):
    _next_report: float = 0.0  # of the monotonic clock

    def updated(self, run: StudyWriter) -> None:
        start = time.monotonic()
        if start < self._next_report and run.attributes["state"]["status"] == "running":
            return
        write_snapshot_report(Snapshot(run.path, run.attributes, run.trials))  # reading it back would take longer
        end = time.monotonic()
        self._next_report = end + (end - start) * (1 / REPORT_SHARE - 1)


class PlainWatcher(_Reporting):
    """A line for every finished candidate."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._finished = -1

    def say(self, text: str) -> None:
        self._console.print(text)

    def progress(self, progress: Progress) -> None:
        if progress.finished != self._finished:
            self._finished = progress.finished
            self.say(f"[{progress.finished}/{progress.total}] {_line(progress)}")


class LiveWatcher(_Reporting):
    """A bar that stays at the bottom of the terminal."""

    def __init__(self, bar: rich.progress.Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("search", total=None, line="")

    def say(self, text: str) -> None:
        self._bar.console.print(text)

    def progress(self, progress: Progress) -> None:
        self._bar.update(self._task, completed=progress.finished, total=progress.total, line=_line(progress))


@contextlib.contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """The watcher that suits the console."""
    if not console.is_terminal:
        yield PlainWatcher(console)
        return
    columns = (
        rich.progress.BarColumn(bar_width=20),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        FieldColumn("line"),
    )
    with rich.progress.Progress(*columns, console=console) as bar:
        yield LiveWatcher(bar)


@contextlib.contextmanager
def counting(console: Console, total: int) -> Iterator[Callable[[int, str], None]]:
    """What to call with how many of `total` are done, and a line on the last: a bar in a terminal, lines elsewhere."""
    if not console.is_terminal:

        def say(done: int, line: str) -> None:
            if line:
                console.print(f"[{done}/{total}] {line}")

        yield say
        return
    columns = (
        rich.progress.BarColumn(bar_width=20),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        FieldColumn("line"),
    )
    with rich.progress.Progress(*columns, console=console) as bar:
        task = bar.add_task("count", total=total, line="")
        yield lambda done, line: bar.update(task, completed=done, line=line)
