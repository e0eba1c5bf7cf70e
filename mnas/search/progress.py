"""How far a search is, and whoever shows it."""

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from optuna.trial import TrialState

from mnas.search.problem import Plan
from mnas.study import StudyWriter


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a search is; of trials taken over from other runs only the best reward and the front know."""

    finished: int
    total: int
    failed: int
    pruned: int
    best_reward: float
    """NaN before the first."""
    front_size: int
    eta_s: float
    """Seconds; NaN while nobody can tell."""
    activity: str
    """What is running now."""


SAVE_EVERY_S = 1.0
"""The time spent is stored at most so often while a batch runs: storing it costs what storing a trial's result does."""


class Watcher(ABC):
    """Whoever shows a search to its user."""

    def decoding(self, done: int, count: int) -> None:  # noqa: B027 - most watchers have nothing to show yet
        """Report that `done` of `count` images are decoded; called before anything else."""

    @abstractmethod
    def say(self, text: str) -> None:
        """A line worth reading."""

    @abstractmethod
    def progress(self, progress: Progress) -> None:
        """Something has changed."""

    @abstractmethod
    def updated(self, run: StudyWriter) -> None:
        """A batch is closed, or the search has ended: the report can be written."""


class Clock:
    """Time spent, also by earlier processes; what is left; and the progress that the watcher shows."""

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
        finished = sum(count for state, count in standing.states.items() if state.is_finished())
        eta_s = math.nan
        if self._finished_here and self._first is not None:
            per_trial_s = (time.monotonic() - self._first) / self._finished_here
            eta_s = min(per_trial_s * (self._plan.trials - finished), self._plan.hours * 3600 - self.elapsed_s)
        self._watcher.progress(
            Progress(
                finished=finished,
                total=self._plan.trials,
                failed=standing.states[TrialState.FAIL],
                pruned=standing.states[TrialState.PRUNED],
                best_reward=math.nan if standing.best_reward is None else standing.best_reward,
                front_size=len(standing.front),
                eta_s=eta_s,
                activity=activity,
            )
        )
