"""The progress of a training, and the watchers that report it."""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass

from mnas.train.metrics import EpochRow


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
