"""The progress of a search, and the watchers that report it."""

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from mnas.search.problem import Plan
from mnas.study import StudyWriter


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a search; imported trials count only towards the best reward and the front."""

    finished: int
    total: int
    failed: int
    pruned: int
    best_reward: float
    """Highest reward; NaN before the first one."""
    front_size: int
    eta_s: float
    """Remaining time in seconds; NaN before the first candidate is finished."""
    activity: str
    """Current activity of the search, in words."""


SAVE_EVERY_S = 1.0
"""Interval in seconds between stores of the elapsed time within a batch; a store costs as much as storing a result."""


class Watcher(ABC):
    """Reports a search to its user."""

    def decoding(self, done: int, count: int) -> None:  # noqa: B027 - most watchers have nothing to show yet
        """Report that `done` of `count` images are decoded; called before all other methods."""

    @abstractmethod
    def say(self, text: str) -> None:
        """Print a line."""

    @abstractmethod
    def progress(self, progress: Progress) -> None:
        """Report that the progress has changed."""

    @abstractmethod
    def updated(self, run: StudyWriter) -> None:
        """Report that a batch is closed or the search has ended, so that the report can be written."""


class Clock:
    """Measures the elapsed time, including that of earlier processes, and reports progress to the watcher."""

    def __init__(self, run: StudyWriter, plan: Plan, watcher: Watcher) -> None:
        self._run, self._plan, self._watcher = run, plan, watcher
        self._before_s: float = run.attributes.get("elapsed_s", 0.0)
        self._start = time.monotonic()
        self._first: float | None = (
            None  # start of the first candidate: references and start-up would distort the estimate
        )
        self._saved = -math.inf
        self._finished_here = 0

    @property
    def elapsed_s(self) -> float:
        return self._before_s + time.monotonic() - self._start

    @property
    def over(self) -> bool:
        return self.elapsed_s >= self._plan.hours * 3600

    def save(self) -> None:
        self._saved = time.monotonic()
        self._run.set("elapsed_s", self.elapsed_s)

    def finished_one(self, activity: str) -> None:
        self._finished_here += 1
        if time.monotonic() - self._saved >= SAVE_EVERY_S:
            self.save()
        self.show(activity)

    def show(self, activity: str) -> None:
        """Report the current activity and the progress to the watcher."""
        standing = self._run.standing
        if self._first is None and len(self._run.trials) > standing.imported:
            self._first = time.monotonic()
        finished = sum(count for state, count in standing.states.items() if state != "running")
        eta_s = math.nan
        if self._finished_here and self._first is not None:
            per_trial_s = (time.monotonic() - self._first) / self._finished_here
            eta_s = min(per_trial_s * (self._plan.trials - finished), self._plan.hours * 3600 - self.elapsed_s)
        self._watcher.progress(
            Progress(
                finished=finished,
                total=self._plan.trials,
                failed=standing.states["failed"],
                pruned=standing.states["skipped"],
                best_reward=math.nan if standing.best_reward is None else standing.best_reward,
                front_size=len(standing.front),
                eta_s=eta_s,
                activity=activity,
            )
        )
