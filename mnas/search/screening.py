"""Before a candidate with known weights is fine-tuned: its frozen features are scored, and it may be dropped for that.

All parents are measured, and their features scored, before any is fine-tuned: that takes seconds each, and shows which
are dominated. Every decision depends on closed batches and on these scores only, so that a resumed search repeats it.
"""

from collections.abc import Sequence

from mnas.controller.surrogate.promise import FEWEST, expected_scores
from mnas.evaluate.evaluation import accuracy_noise
from mnas.search.measure import measure, skip
from mnas.search.problem import Plan, Problem
from mnas.search.progress import Clock, Watcher
from mnas.search.steps import evaluated
from mnas.study import StudyWriter, TrialRecord
from mnas.study.limits import Skip
from mnas.workers import LocalWorkers


def count_initial(trials: Sequence[TrialRecord]) -> int:
    """Return the number of trials that the study began with: imported, named, or of a parent."""
    return next((n for n, trial in enumerate(trials) if trial.origin is None and trial.name is None), len(trials))


def survey(
    run: StudyWriter, problem: Problem, plan: Plan, workers: LocalWorkers, watcher: Watcher, clock: Clock
) -> None:
    """Measure every parent that the study began with, then score the frozen features of those within the limits."""
    initial = [n for n in range(count_initial(run.trials)) if run.trials[n].parent]
    measure(run, problem, plan, initial, watcher, clock)
    score_features(run, initial, workers, watcher, clock)


def score_features(
    run: StudyWriter, numbers: Sequence[int], workers: LocalWorkers, watcher: Watcher, clock: Clock
) -> None:
    """Score the frozen features of the measured trials with known weights."""
    waiting = [n for n in numbers if _may_be_scored(run.trials[n]) and run.trials[n].features is None]
    for number, evaluation in evaluated(run, workers, waiting, "features", watcher, clock):
        run.note(number, features=evaluation)


def _may_be_scored(trial: TrialRecord) -> bool:
    return bool(trial.parent) and not trial.is_finished and trial.latency is not None


def drop_hopeless(run: StudyWriter, problem: Problem, numbers: range, clock: Clock) -> None:
    """Skip the trials of a batch that would not reach the front, as far as their features tell.

    Before `FEWEST` fine-tuned candidates are known, that is a significantly better score of the features of a candidate
    that is no slower; then, an expected score one deviation below the best fine-tuned score of such a candidate.
    """
    waiting = [n for n in numbers if _may_be_scored(run.trials[n]) and run.trials[n].features is not None]
    scored = [t for t in run.trials[: max(numbers.stop, count_initial(run.trials))] if t.features and t.latency]
    closed = [t for t in run.trials[: numbers.start] if t.state == "complete"]
    seen = [(t.choices, t.features.score(problem.metric), t.point[0]) for t in closed if t.features and t.evaluation]
    reached: dict[int, tuple[float, float]] = {}  # number -> what it may reach, what others have reached
    if len(seen) < FEWEST:
        reached = {n: _of_features(run.trials[n], scored, problem) for n in waiting}
    elif waiting:
        asked = [(run.trials[n].choices, _features_score(run.trials[n], problem)) for n in waiting]
        means, deviations = expected_scores(problem.space.distributions, seen, asked)
        for number, mean, deviation in zip(waiting, means, deviations, strict=True):
            reached[number] = (float(mean + deviation), _best([t.point for t in closed], run.trials[number]))
    for number, (hope, best) in reached.items():
        if hope < best:
            skip(run, number, Skip(limit="front", value=max(hope, 1e-6), bound=best), clock)


def _of_features(trial: TrialRecord, scored: Sequence[TrialRecord], problem: Problem) -> tuple[float, float]:
    """Return the score of the trial's features with its noise, and the best one of candidates that are no slower."""
    assert trial.features is not None
    score = _features_score(trial, problem)
    points = [(_features_score(other, problem), other.latency_ms or 0.0) for other in scored]
    return score + accuracy_noise(score, trial.features.val_images), _best(points, trial)


def _features_score(trial: TrialRecord, problem: Problem) -> float:
    assert trial.features is not None
    return trial.features.score(problem.metric)


def _best(points: Sequence[tuple[float, float]], trial: TrialRecord) -> float:
    """Return the best score of the (score, latency in ms) that are no slower than the trial; 0 without any."""
    assert trial.latency_ms is not None
    return max((score for score, latency_ms in points if latency_ms <= trial.latency_ms), default=0.0)
