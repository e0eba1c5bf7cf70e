"""How far a search is, and what reports it."""

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from mnas.search.problem import Plan
from mnas.study import StudyWriter


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a search is; trials taken over from other runs count only towards the best reward and the front."""

    finished: int
    total: int
    failed: int
    pruned: int
    best_reward: float
    """Highest reward; NaN before the first."""
    front_size: int
    eta_s: float
    """Remaining time in seconds; NaN before the first candidate is finished."""
    activity: str
    """What the search does now."""


SAVE_EVERY_S = 1.0
"""Interval between stores of the elapsed time while a batch runs: storing it costs what storing a result does."""


class Watcher(ABC):
    """Reports a search to its user."""

    def decoding(self, done: int, count: int) -> None:  # noqa: B027 - most watchers have nothing to show yet
        """Report that `done` of `count` images are decoded; called before anything else."""

    @abstractmethod
    def say(self, text: str) -> None:
        """Print a line."""

    @abstractmethod
    def progress(self, progress: Progress) -> None:
        """Report that something has changed."""

    @abstractmethod
    def updated(self, run: StudyWriter) -> None:
        """Take notice that a batch is closed, or the search has ended: the report can be written."""


class Clock:
    """Elapsed time, also of earlier processes, and the progress that the watcher reports."""

    def __init__(self, run: StudyWriter, plan: Plan, watcher: Watcher) -> None:
        self._run, self._plan, self._watcher = run, plan, watcher
        self._before_s: float = run.attributes.get("elapsed_s", 0.0)
        self._start = time.monotonic()
        self._first: float | None = (
            None  # when the first candidate was begun: references and start-up say nothing of it
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
        """Tell the watcher what is running, and how far the search is."""
        standing = self._run.standing
        if self._first is None and len(self._run.trials) > standing.taken:
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
