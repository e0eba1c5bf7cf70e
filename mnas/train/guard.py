"""The best epoch of a training, to which it goes back if it diverges and with which it can end.

An epoch has diverged if its loss is not finite, or if validation has lost most of what the training had reached: more
than half of the best accuracy's gain over always predicting the most frequent class, and more than four standard errors
of an accuracy. The noise of few validation images stays within the standard errors, and the ups and downs of a high
learning rate within half of the gain. A training that loses more has lost what the initial weights knew.
"""

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from mnas.train.config import TrainConfig
from mnas.train.scoring import Scored

RATE_FACTOR = 0.25
"""Factor by which a training multiplies its learning rate each time that it goes back."""
_ERRORS = 4
_KEYS = {"epoch", "accuracy", "rose", "restarts", "weights"}


class Guard:
    """The best epoch so far, from 1 (0: the start), with all weights that a training needs to continue from there.

    Where accuracies are equal, the later epoch is the best, as its learning rate is lower.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.retries, self.patience = config.retries, config.patience
        self.epoch = self.rose = self.restarts = 0
        self.accuracy = 0.0
        self._weights: Mapping[str, Any] = {}

    @property
    def active(self) -> bool:
        """Whether the best epoch has a use."""
        return bool(self.retries or self.patience)

    @property
    def factor(self) -> float:
        """The factor of the learning rate."""
        return RATE_FACTOR**self.restarts

    def collapse(self, scored: Scored) -> str:
        """Return the sentence that says how far validation has fallen; empty if the epoch has not diverged."""
        if not self.retries:
            return ""
        images = sum(scored.counts)
        error = math.sqrt(self.accuracy * (1 - self.accuracy) / images)
        lowest = self.accuracy - max((self.accuracy - scored.majority_share) / 2, _ERRORS * error)
        if scored.accuracy >= lowest:
            return ""
        return f"the training diverged: validation accuracy fell from {self.accuracy:.2%} to {scored.accuracy:.2%}"

    def add(self, epoch: int, accuracy: float, weights: Mapping[str, Any]) -> None:
        """Take note of a finished epoch, and copy its weights if it is the best so far."""
        if not self.active or (epoch and accuracy < self.accuracy):
            return
        if accuracy > self.accuracy:
            self.rose = epoch
        self.epoch, self.accuracy, self._weights = epoch, accuracy, deepcopy(dict(weights))

    def ends(self, epoch: int) -> bool:
        """Return whether a training ends after this epoch, because accuracy has not risen for `patience` epochs."""
        return bool(self.patience) and epoch - self.rose >= self.patience

    def back(self) -> Mapping[str, Any]:
        """Count a restart, and return the weights of the best epoch."""
        self.restarts += 1
        return self.best()

    def best(self) -> Mapping[str, Any]:
        """Return a copy of the weights of the best epoch."""
        return deepcopy(dict(self._weights))

    def state(self) -> dict[str, Any] | None:
        """Return the content for a checkpoint; None without a use."""
        if not self.active:
            return None
        return {
            "epoch": self.epoch, "accuracy": self.accuracy, "rose": self.rose, "restarts": self.restarts,
            "weights": self._weights,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any] | None, epoch: int) -> None:
        """Restore the content of a checkpoint after this number of epochs. Raises ValueError if it does not fit."""
        if not self.active:
            return
        if state is None or set(state) != _KEYS:
            raise ValueError("it has no best epoch")
        counts = [state[name] for name in ("rose", "epoch", "restarts")]
        if not all(type(count) is int for count in counts) or not 0 <= counts[0] <= counts[1] <= epoch:
            raise ValueError(f"its best epoch is {state['epoch']!r} after {epoch}")
        accuracy = state["accuracy"]
        if not 0 <= counts[2] <= self.retries or type(accuracy) is not float or not 0 <= accuracy <= 1:
            raise ValueError(f"it has {counts[2]} restarts and the accuracy {accuracy!r}")
        self.rose, self.epoch, self.restarts = counts
        self.accuracy, self._weights = accuracy, state["weights"]
