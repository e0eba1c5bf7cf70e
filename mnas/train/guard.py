"""The best epoch of a training, to which it goes back if it diverges and with which it can end.

An epoch has diverged in any of three cases.

1. A loss or an output is not finite.
2. Its mean training loss is over 2 % higher than that of a start with equal outputs for all classes. A new classifier
   starts so, and a training that knows less than nothing destroys the features that it was given. Validation does not
   show this in the first epoch, which begins at chance. Another start has a loss that fluctuates, so 50 % above it,
   and above that of equal outputs, count.
3. Balanced validation accuracy has lost more than half of its highest gain over predicting one class always, and more
   than four standard errors. The noise of few validation images stays within the standard errors, and the ups and
   downs of a high learning rate within half of the gain. Plain accuracy may fall when a network begins to see rare
   classes.
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
_LOSS_MARGIN, _FLUCTUATING_MARGIN = 1.02, 1.5
_SAME = 1e-4  # relative difference of losses up to which the outputs of the start are equal
_KEYS = {"epoch", "accuracy", "measure", "reached", "most_loss", "rose", "restarts", "weights"}


class Guard:
    """The best epoch so far, from 1 (0: the start), with all weights that a training needs to continue from there.

    The best epoch has the highest validation accuracy, balanced with --balance. Where several have it, the last is the
    best, as its learning rate is lower.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.retries, self.patience = config.retries, config.patience
        self._balanced = config.balance != "none"
        self.epoch = self.rose = self.restarts = 0
        self.accuracy = 0.0
        """Accuracy of the best epoch."""
        self._measure = 0.0
        """Score by which it is the best: its accuracy or balanced accuracy."""
        self.most_loss = math.inf
        """Mean training loss above which an epoch has diverged."""
        self.reached = 0.0
        """Highest balanced accuracy."""
        self._weights: Mapping[str, Any] = {}

    @property
    def active(self) -> bool:
        """Whether the best epoch has a use."""
        return bool(self.retries or self.patience)

    @property
    def factor(self) -> float:
        """The factor of the learning rate."""
        return RATE_FACTOR**self.restarts

    def collapse(self, loss: float, scored: Scored, *, scale: float = 1.0) -> str:
        """Return the sentence that says how an epoch has diverged; empty if it has not.

        Args:
            loss: mean training loss of the epoch.
            scale: mean loss of equal outputs on the same images, if `begin` got losses in units of it. A loss with
                weights of classes depends on which images an epoch has.
        """
        if not self.retries:
            return ""
        if loss > self.most_loss * scale:
            return f"the training diverged: its mean loss of {loss:.4g} is higher than the start's"
        counts = [count for count in scored.counts if count]
        chance = 1 / len(counts)
        error = chance * math.sqrt(self.reached * (1 - self.reached) * sum(1 / count for count in counts))
        lowest = self.reached - max((self.reached - chance) / 2, _ERRORS * error)
        if scored.balanced_accuracy >= lowest:
            return ""
        return (
            f"the training diverged: balanced validation accuracy fell from {self.reached:.2%} to "
            f"{scored.balanced_accuracy:.2%}"
        )

    def begin(self, own: float, equal: float) -> None:
        """Take note of the losses of the start on training images, and of equal outputs for all classes there."""
        margin = _LOSS_MARGIN if abs(own - equal) <= _SAME * equal else _FLUCTUATING_MARGIN
        self.most_loss = margin * max(own, equal)

    def add(self, epoch: int, scored: Scored, weights: Mapping[str, Any]) -> None:
        """Take note of a finished epoch, and copy its weights if it is the best so far."""
        if not self.active:
            return
        self.reached = max(self.reached, scored.balanced_accuracy)
        measure = scored.balanced_accuracy if self._balanced else scored.accuracy
        if epoch and measure < self._measure:
            return
        if measure > self._measure:
            self.rose = epoch
        self.epoch, self._measure, self.accuracy = epoch, measure, scored.accuracy
        self._weights = deepcopy(dict(weights))

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
            "epoch": self.epoch, "accuracy": self.accuracy, "measure": self._measure, "reached": self.reached,
            "most_loss": self.most_loss, "rose": self.rose, "restarts": self.restarts, "weights": self._weights,
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
        shares = [state[name] for name in ("accuracy", "measure", "reached")]
        if not 0 <= counts[2] <= self.retries or not all(type(s) is float and 0 <= s <= 1 for s in shares):
            raise ValueError(f"it has {counts[2]} restarts and the accuracies {shares}")
        if type(state["most_loss"]) is not float or not state["most_loss"] > 0:
            raise ValueError(f"it has the loss {state['most_loss']!r} at the start")
        self.most_loss = state["most_loss"]
        self.rose, self.epoch, self.restarts = counts
        self.accuracy, self._measure, self.reached = shares
        self._weights = state["weights"]
