"""The progress of a training, and the watchers that report it."""

import datetime
import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from mnas.train.metrics import EpochRow

_EVERY_S = 60.0


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """Progress of a training."""

    epoch: int
    """Epoch, from 1."""
    epochs: int
    step: int
    """Number of completed steps in this epoch."""
    steps: int
    loss: float
    """Mean loss of the epoch so far; NaN if reading it would wait for a GPU."""
    images_per_s: float
    """Training speed in this epoch, in images per second."""
    eta_s: float
    """Remaining time of training and scoring, in seconds; NaN before there is a basis for it."""


class TrainWatcher(ABC):
    """Reports a training to its user."""

    @abstractmethod
    def step(self, progress: TrainProgress) -> None:
        """Called after every step; must be quick."""

    @abstractmethod
    def epoch(self, row: EpochRow) -> None:
        """Called after every scoring."""

    def notice(self, line: str) -> None:
        """Called with a line that the user should read; prints it to standard error unless overridden."""
        print(line, file=sys.stderr)


class Unwatched(TrainWatcher):
    """Reports nothing but notices."""

    def step(self, progress: TrainProgress) -> None:
        pass

    def epoch(self, row: EpochRow) -> None:
        pass


class SayingWatcher(TrainWatcher):
    """Says a line for every epoch, and one a minute within long epochs."""

    def __init__(self, say: Callable[[str], None], epochs: int) -> None:
        self._say, self._epochs = say, epochs
        self._last = time.monotonic()

    def step(self, progress: TrainProgress) -> None:
        if time.monotonic() - self._last > _EVERY_S and progress.step < progress.steps:
            self._last = time.monotonic()
            self._say(
                f"[{progress.epoch}/{self._epochs}] step {progress.step} of {progress.steps}, "
                f"{progress.images_per_s:,.0f} images/s{_left(progress.eta_s)}"
            )

    def epoch(self, row: EpochRow) -> None:
        self._last = time.monotonic()
        remaining_s = (self._epochs - row.epoch) * (row.train_s + row.score_s)
        self._say(
            f"[{row.epoch}/{self._epochs}] {row.scores}  loss {row.train_loss:.4f}  "
            f"{row.images_per_s:,.0f} images/s{_left(remaining_s)}"
        )

    def notice(self, line: str) -> None:
        self._say(line)


def _left(seconds: float) -> str:
    return "" if math.isnan(seconds) else f", {datetime.timedelta(seconds=round(seconds))} left"
