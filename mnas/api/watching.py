"""Watchers that show a search as a bar, as lines or not at all; each updates the report."""

import contextlib
import datetime
import math
import time
from collections.abc import Iterator
from typing import Literal

import rich.progress
from rich.console import Console
from rich.text import Text

from mnas.report.html import write_snapshot_report
from mnas.search.progress import Progress, Watcher
from mnas.study import Snapshot, StudyWriter
from mnas.text import clean

REPORT_SHARE = 0.05
"""Largest share of the time for writing the report, which takes seconds for thousands of trials."""

Shown = Watcher | Literal["auto", "bar", "none"]
"""A watcher, or the name of one: bar, none, or auto, which is bar in a notebook and none elsewhere."""


class FieldColumn(rich.progress.ProgressColumn):
    """A column of a progress bar that shows one field of its task, as plain text."""

    def __init__(self, field: str) -> None:
        super().__init__()
        self._field = field

    def render(self, task: rich.progress.Task) -> Text:
        return Text(clean(task.fields[self._field]), no_wrap=True, overflow="ellipsis")


class ReportingWatcher(Watcher):
    """Shows nothing, but writes the report when a batch is closed."""

    _next_report: float = 0.0  # on the monotonic clock

    def say(self, text: str) -> None:
        """Do nothing."""

    def progress(self, progress: Progress) -> None:
        """Do nothing."""

    def updated(self, run: StudyWriter) -> None:
        """Write report.html, unless the last one is too recent."""
        start = time.monotonic()
        if start < self._next_report and run.attributes["state"]["status"] == "running":
            return
        write_snapshot_report(Snapshot(run.path, run.attributes, run.trials))  # reading it back would take longer
        end = time.monotonic()
        self._next_report = end + (end - start) * (1 / REPORT_SHARE - 1)


class LineWatcher(ReportingWatcher):
    """Prints a line for every finished candidate."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._finished = -1

    def say(self, text: str) -> None:
        """Print the line."""
        self._console.print(text)

    def progress(self, progress: Progress) -> None:
        """Print a line if a candidate is finished."""
        if progress.finished != self._finished:
            self._finished = progress.finished
            self.say(f"[{progress.finished}/{progress.total}] {progress_line(progress)}")


class BarWatcher(ReportingWatcher):
    """Keeps a bar below the lines that it prints, in a terminal or a notebook."""

    def __init__(self, bar: rich.progress.Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("search", total=None, line="")

    def decoding(self, done: int, count: int) -> None:
        """Show how many images are decoded."""
        self._bar.update(self._task, completed=done, total=count, line="decoding images")

    def say(self, text: str) -> None:
        """Print the line above the bar."""
        self._bar.console.print(Text(clean(text)), soft_wrap=True)

    def progress(self, progress: Progress) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=progress.finished, total=progress.total, line=progress_line(progress))


def progress_line(progress: Progress) -> str:
    """Return `best reward 0.8123  front 7  2 failed  ETA 0:12:03  training 41, 42`."""
    reward = "-" if math.isnan(progress.best_reward) else f"{progress.best_reward:.4f}"
    counts = ((progress.failed, "failed"), (progress.pruned, "skipped"))
    others = "".join(f"  {count} {what}" for count, what in counts if count)
    eta = "-" if math.isnan(progress.eta_s) else str(datetime.timedelta(seconds=max(0, round(progress.eta_s))))
    return f"best reward {reward}  front {progress.front_size}{others}  ETA {eta}  {progress.activity}"


@contextlib.contextmanager
def bar_watcher(console: Console) -> Iterator[Watcher]:
    """Show a bar on the console while the context lasts."""
    columns = (
        rich.progress.BarColumn(bar_width=20),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        FieldColumn("line"),
    )
    with rich.progress.Progress(*columns, console=console) as bar:
        yield BarWatcher(bar)


@contextlib.contextmanager
def shown_by(watcher: Shown) -> Iterator[Watcher]:
    """Yield the watcher that the caller of a Python function chose, by name or as an object.

    Raises:
        ValueError: the name is unknown.
    """
    if isinstance(watcher, Watcher):
        yield watcher
        return
    console = Console()
    if wants_bar(watcher, "Watcher", console):
        with bar_watcher(console) as bar:
            yield bar
        return
    yield ReportingWatcher()


def wants_bar(watcher: object, kind: str, console: Console) -> bool:
    """Return whether the name of a watcher asks for a bar on this console; auto does so in a notebook.

    Args:
        kind: the class whose objects are accepted beside the names, for the error.

    Raises:
        ValueError: the name is none of auto, bar and none.
    """
    if watcher not in ("auto", "bar", "none"):
        raise ValueError(f"watcher must be a {kind}, auto, bar or none, but got {watcher!r}")
    return watcher == "bar" or (watcher == "auto" and console.is_jupyter)
