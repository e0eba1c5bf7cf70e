"""How a training is shown: not at all, as a bar in a terminal or a notebook, or as a line for every epoch."""

import contextlib
import datetime
import math
import time
from collections.abc import Iterator
from typing import Literal

import rich.progress
from rich.console import Console

from mnas.api.watching import FieldColumn
from mnas.train.metrics import EpochMetrics
from mnas.train.watch import TrainProgress, TrainWatcher, Unwatched

ShownTraining = TrainWatcher | Literal["auto", "bar", "none"]
"""A watcher, or the name of one: bar, none, or auto, which is bar in a notebook and none elsewhere."""

_EVERY_S = 60.0
_REDRAW_S = 0.1


def _line(p: TrainProgress) -> str:
    loss = "" if math.isnan(p.loss) else f"loss {p.loss:.4f}  "
    eta = "-" if math.isnan(p.eta_s) else str(datetime.timedelta(seconds=round(p.eta_s)))
    return f"{loss}{p.images_per_s:,.0f} images/s  ETA {eta}"


def _epoch_line(row: EpochMetrics, epochs: int) -> str:
    return (
        f"[{row.epoch}/{epochs}] loss {row.train_loss:.4f}  val accuracy {row.val_accuracy:.2%}  val loss "
        f"{row.val_loss:.4f}  {row.images_per_s:,.0f} images/s  waiting {row.waiting:.1%}"
    )


class PlainTraining(TrainWatcher):
    """A line for every epoch, and one a minute within long ones."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = time.monotonic()
        self._last: TrainProgress | None = None

    def step(self, progress: TrainProgress) -> None:
        self._last = progress
        if time.monotonic() - self._said > _EVERY_S:
            self._say(f"[{progress.epoch}/{progress.epochs}] step {progress.step}/{progress.steps}  {_line(progress)}")

    def epoch(self, row: EpochMetrics) -> None:
        eta = ""
        if self._last is not None:
            seconds = (self._last.epochs - row.epoch) * (row.train_s + row.score_s)
            eta = f"  ETA {datetime.timedelta(seconds=round(seconds))}"
        self._say(_epoch_line(row, self._last.epochs if self._last else row.epoch) + eta)

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        self._console.print(text)


class LiveTraining(TrainWatcher):
    """A bar that stays at the bottom of the terminal; finished epochs scroll by above it."""

    def __init__(self, bar: rich.progress.Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("train", total=None, epoch="", line="")
        self._drawn = 0.0
        self._epochs = 0

    def step(self, progress: TrainProgress) -> None:
        self._epochs = progress.epochs
        if time.monotonic() - self._drawn > _REDRAW_S or progress.step == progress.steps:
            self._drawn = time.monotonic()
            epoch = f"epoch {progress.epoch}/{progress.epochs}"
            self._bar.update(
                self._task, completed=progress.step, total=progress.steps, epoch=epoch, line=_line(progress)
            )

    def epoch(self, row: EpochMetrics) -> None:
        self._bar.console.print(_epoch_line(row, self._epochs or row.epoch))


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
    """Yield the watcher that suits the console of a command."""
    if console.quiet:
        yield Unwatched()
    elif not console.is_terminal:
        yield PlainTraining(console)
    else:
        with training_bar(console) as bar:
            yield bar


@contextlib.contextmanager
def training_shown_by(watcher: ShownTraining) -> Iterator[TrainWatcher]:
    """Yield the watcher that a Python function was given, by name or as it is.

    Raises:
        ValueError: the name is none of them.
    """
    if isinstance(watcher, TrainWatcher):
        yield watcher
        return
    if watcher not in ("auto", "bar", "none"):
        raise ValueError(f"watcher must be a TrainWatcher, auto, bar or none, but got {watcher!r}")
    console = Console()
    if watcher == "bar" or (watcher == "auto" and console.is_jupyter):
        with training_bar(console) as bar:
            yield bar
        return
    yield Unwatched()
