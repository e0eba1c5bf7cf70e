"""Watchers that show a training as a progress bar or as lines, and functions that choose one."""

import contextlib
import datetime
import math
import time
from collections.abc import Iterator
from typing import Literal

import rich.progress
from rich.console import Console

from mnas.api.watching import FieldColumn, wants_bar
from mnas.train.metrics import EpochRow
from mnas.train.watch import TrainProgress, TrainWatcher, Unwatched

ShownTraining = TrainWatcher | Literal["auto", "bar", "none"]
"""A watcher, or the name of one: bar, none, or auto, which is bar in a notebook and none elsewhere."""

_LINE_INTERVAL_S = 60.0
"""Time without a line after which `PlainTraining` prints one within an epoch."""
_REDRAW_INTERVAL_S = 0.1
"""Shortest time between two updates of the bar: steps may take less than a millisecond."""


class PlainTraining(TrainWatcher):
    """Prints a line for every epoch, and one a minute within long epochs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed_at = time.monotonic()
        self._progress: TrainProgress | None = None

    def step(self, progress: TrainProgress) -> None:
        """Print a line if the last one is a minute old."""
        self._progress = progress
        if time.monotonic() - self._printed_at > _LINE_INTERVAL_S:
            epoch = f"[{progress.epoch}/{progress.epochs}]"
            self._print(f"{epoch} step {progress.step}/{progress.steps}  {_step_line(progress)}")

    def epoch(self, row: EpochRow) -> None:
        """Print the epoch's line, with the time that the remaining epochs would take at its pace."""
        if self._progress is None:  # no step so far, so the number of epochs is unknown
            self._print(_epoch_line(row, row.epoch))
            return
        epochs = self._progress.epochs
        remaining_s = (epochs - row.epoch) * (row.train_s + row.score_s)
        self._print(f"{_epoch_line(row, epochs)}  ETA {datetime.timedelta(seconds=round(remaining_s))}")

    def notice(self, line: str) -> None:
        """Print the line."""
        self._print(line)

    def _print(self, text: str) -> None:
        self._printed_at = time.monotonic()
        self._console.print(text)


class LiveTraining(TrainWatcher):
    """Keeps a bar at the bottom of the terminal, below the lines of the finished epochs."""

    def __init__(self, bar: rich.progress.Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("train", total=None, epoch="", line="")
        self._drawn_at = 0.0
        self._epochs = 0  # unknown before the first step

    def step(self, progress: TrainProgress) -> None:
        """Move the bar, unless it moved a moment ago; the last step of an epoch always shows."""
        self._epochs = progress.epochs
        if time.monotonic() - self._drawn_at > _REDRAW_INTERVAL_S or progress.step == progress.steps:
            self._drawn_at = time.monotonic()
            epoch = f"epoch {progress.epoch}/{progress.epochs}"
            line = _step_line(progress)
            self._bar.update(self._task, completed=progress.step, total=progress.steps, epoch=epoch, line=line)

    def epoch(self, row: EpochRow) -> None:
        """Print the epoch's line above the bar."""
        self._bar.console.print(_epoch_line(row, self._epochs or row.epoch))

    def notice(self, line: str) -> None:
        """Print the line above the bar."""
        self._bar.console.print(line)


def _step_line(progress: TrainProgress) -> str:
    """Return `loss 1.2345  1,234 images/s  ETA 0:12:03`; no loss where it is unknown."""
    loss = "" if math.isnan(progress.loss) else f"loss {progress.loss:.4f}  "
    eta = "-" if math.isnan(progress.eta_s) else str(datetime.timedelta(seconds=round(progress.eta_s)))
    return f"{loss}{progress.images_per_s:,.0f} images/s  ETA {eta}"


def _epoch_line(row: EpochRow, epochs: int) -> str:
    """Return `[3/90] loss 1.2345  val accuracy 61.20%  val loss 1.1234  1,234 images/s  data wait 2.1%`."""
    return (
        f"[{row.epoch}/{epochs}] loss {row.train_loss:.4f}  {row.scores}  {row.images_per_s:,.0f} images/s  "
        f"data wait {row.waiting:.1%}"
    )


@contextlib.contextmanager
def training_bar(console: Console) -> Iterator[TrainWatcher]:
    """Show a bar on the console while the context lasts."""
    columns = (
        FieldColumn("epoch"),
        rich.progress.BarColumn(bar_width=20),
        rich.progress.MofNCompleteColumn(),
        FieldColumn("line"),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:
        yield LiveTraining(bar)


@contextlib.contextmanager
def watching_training(console: Console) -> Iterator[TrainWatcher]:
    """Yield the watcher for a command: none on a quiet console, a bar in a terminal, lines in a pipe or a log."""
    if console.quiet:
        yield Unwatched()
    elif console.is_terminal:
        with training_bar(console) as bar:
            yield bar
    else:
        yield PlainTraining(console)


@contextlib.contextmanager
def training_shown_by(watcher: ShownTraining) -> Iterator[TrainWatcher]:
    """Yield the watcher that the caller of a Python function chose, by name or as an object.

    Raises:
        ValueError: `watcher` is neither a TrainWatcher nor one of the names.
    """
    if isinstance(watcher, TrainWatcher):
        yield watcher
        return
    console = Console()
    if wants_bar(watcher, "TrainWatcher", console):
        with training_bar(console) as bar:
            yield bar
        return
    yield Unwatched()
