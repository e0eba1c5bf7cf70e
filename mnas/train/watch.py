"""How far a training is, and who wants to know."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from mnas.train.metrics import EpochMetrics


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """How far a training is."""

    epoch: int
    """From 1 on."""
    epochs: int
    step: int
    """Steps done of this epoch."""
    steps: int
    loss: float
    """Mean of the epoch so far; NaN where it is not known without waiting for a GPU."""
    images_per_s: float
    """Of this epoch's training."""
    eta_s: float
    """Of training and scoring; NaN before there is anything to go by."""


class TrainWatcher(ABC):
    """Who wants to see how a training goes."""

    @abstractmethod
    def step(self, progress: TrainProgress) -> None:
        """After every step; to be quick."""

    @abstractmethod
    def epoch(self, row: EpochMetrics) -> None:
        """After every scoring."""


class Unwatched(TrainWatcher):
    """Nobody."""

    def step(self, progress: TrainProgress) -> None:
        pass

    def epoch(self, row: EpochMetrics) -> None:
        pass
