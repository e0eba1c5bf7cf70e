"""Functions of several records of a study."""

from collections.abc import Sequence

from mnas.objective import Objective, pareto_front
from mnas.study.record import TrialRecord


def count_imported(trials: Sequence[TrialRecord]) -> int:
    """Return the number of a study's trials that were imported from other runs; these are its first."""
    return next((place for place, trial in enumerate(trials) if trial.origin is None), len(trials))


def front_of(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete trials that no other one dominates, fastest first."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return [complete[place] for place in pareto_front([trial.point for trial in complete])]


def best_for(trials: Sequence[TrialRecord], objective: Objective) -> TrialRecord:
    """Return the complete trial with the highest reward, the fastest among equals; `trials` are in order of latency."""
    return max(trials, key=lambda trial: objective.reward(*trial.point))
