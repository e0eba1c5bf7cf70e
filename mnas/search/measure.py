"""The first step of a batch: what is known of its candidates before any of them is trained."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.trial import TrialState

from mnas.architecture import architecture_from_dict
from mnas.controller.view import KNOWN_VALUES
from mnas.evaluate.evaluation import Evaluation
from mnas.latency.latency import Latency, MeasurementError, joint_source
from mnas.latency.prediction.predictor import choose_to_measure
from mnas.objective import Sharing
from mnas.search.problem import Plan, Problem
from mnas.search.progress import Clock, Watcher
from mnas.study import StudyWriter, front_of
from mnas.study.limits import over_limits, over_size


def measure(run: StudyWriter, problem: Problem, plan: Plan, numbers: range, watcher: Watcher, clock: Clock) -> None:
    """Measure, or predict, what is left of the batch; before any training, so that nothing else runs meanwhile."""
    known = run.standing.first["latency"]
    unknown: dict[str, list[int]] = {}  # fingerprint -> numbers of the batch
    for number in numbers:
        trial = run.trials[number]
        if trial.state.is_finished() or _skip_large(run, plan, number, clock):
            continue
        if "latency" not in trial.user_attrs:
            fingerprint = trial.user_attrs["fingerprint"]
            predicted = problem.predict(architecture_from_dict(trial.user_attrs["arch"])) if problem.predict else None
            if fingerprint in known:
                twin = run.trials[known[fingerprint]].user_attrs
                _note(run, number, twin["latencies"], twin["latency"])
            elif predicted and _is_enough(problem, plan, predicted):
                _note_latencies(run, problem, number, predicted)
            else:
                unknown.setdefault(fingerprint, []).append(number)
                continue
        _skip_slow(run, problem, plan, number, clock)
    for number in _measured(run, problem, unknown, watcher, clock):
        _skip_slow(run, problem, plan, number, clock)


def may_be_on_front(run: StudyWriter, problem: Problem, closed: int, number: int) -> bool:
    """Whether the latency of the trained trial `number` was only predicted, and may be good enough for the front.

    The front is that of the first `closed` trials, so that the answer does not depend on who is trained first.
    """
    trial = run.trials[number].user_attrs
    latency = Latency.from_dict(trial["latency"])
    if latency.source != "predicted":
        return False
    chosen = choose_to_measure(
        [latency],
        target_ms=problem.objective.target_latency_ms,
        front=[(t.values[0], t.values[1]) for t in front_of(run.trials[:closed])],
        accuracies=[Evaluation.from_dict(trial["evaluation"]).score(problem.metric)],
    )
    return bool(chosen)


def _is_enough(problem: Problem, plan: Plan, predicted: Mapping[str, Latency]) -> bool:
    """Whether predictions may stand for the time being: narrow, on one side of the limit, and none on memory is set."""
    if plan.max_memory_mb != math.inf:  # which nobody predicts
        return False
    limit_ms = plan.latency_limit * problem.slowest_target_ms
    together = shared_latency(problem.sharing, predicted)
    each = choose_to_measure(list(predicted.values()), target_ms=math.inf)
    return not each and not choose_to_measure([together], target_ms=math.inf, limit_ms=limit_ms)


def measure_trained(
    run: StudyWriter, problem: Problem, numbers: Sequence[int], watcher: Watcher, clock: Clock
) -> Iterator[int]:
    """Replace the predicted latencies of trained trials by measured ones; yields each number that is done."""
    waiting: dict[str, list[int]] = {}
    for number in numbers:
        waiting.setdefault(run.trials[number].user_attrs["fingerprint"], []).append(number)
    yield from _measured(run, problem, waiting, watcher, clock)


def _measured(
    run: StudyWriter, problem: Problem, waiting: Mapping[str, Sequence[int]], watcher: Watcher, clock: Clock
) -> Iterator[int]:
    """Measure architectures (fingerprint -> the trials that are it); yields each trial whose latency is now noted."""
    if not waiting or clock.over:
        return
    clock.show(f"measuring {len(waiting)} architectures")
    archs = {twins[0]: architecture_from_dict(run.trials[twins[0]].user_attrs["arch"]) for twins in waiting.values()}
    outcomes = problem.measure(archs)
    try:
        for first, outcome in outcomes:
            for number in waiting[run.trials[first].user_attrs["fingerprint"]]:
                if isinstance(outcome, MeasurementError):
                    fail(run, number, str(outcome), watcher)
                    clock.finished_one("measuring")
                else:
                    _note_latencies(run, problem, number, outcome.latencies)
                    yield number
            clock.show("measuring")
            if clock.over:
                return
    finally:
        outcomes.close()


def _note_latencies(run: StudyWriter, problem: Problem, number: int, latencies: Mapping[str, Latency]) -> None:
    together = shared_latency(problem.sharing, latencies)
    _note(run, number, {name: latency.to_dict() for name, latency in latencies.items()}, together.to_dict())


def _note(run: StudyWriter, number: int, latencies: Mapping[str, Any], latency: Mapping[str, Any]) -> None:
    run.note(number, "latencies", latencies)
    run.note(number, "latency", latency)  # the last one: it says that the trial is measured


def shared_latency(sharing: Sharing, latencies: Mapping[str, Latency]) -> Latency:
    """One device's latency as it is; of several, the worst one's record with all their values, as sure as the least."""
    if len(latencies) == 1:
        return next(iter(latencies.values()))
    worst = max(latencies, key=lambda name: latencies[name].latency_ms / sharing.targets_ms[name])
    low_ms, latency_ms, high_ms = (
        sharing.latency_ms({device: getattr(latency, name) for device, latency in latencies.items()})
        for name in ("low_ms", "latency_ms", "high_ms")
    )
    source = joint_source(latency.source for latency in latencies.values())
    return replace(latencies[worst], low_ms=low_ms, latency_ms=latency_ms, high_ms=high_ms, source=source)


def _skip_large(run: StudyWriter, plan: Plan, number: int, clock: Clock) -> bool:
    if reason := over_size(plan, run.trials[number].user_attrs["size_bytes"]):
        _prune(run, number, reason, clock)
    return bool(reason)


def _skip_slow(run: StudyWriter, problem: Problem, plan: Plan, number: int, clock: Clock) -> None:
    """Or one that takes too much memory."""
    known = run.trials[number].user_attrs
    if reason := over_limits(plan, problem.slowest_target_ms, known["latency"], known["latencies"]):
        _prune(run, number, reason, clock)


def _prune(run: StudyWriter, number: int, reason: str, clock: Clock) -> None:
    run.note(number, "skipped", reason)
    if "latency" in run.trials[number].user_attrs:  # what a controller may still learn from
        run.note(number, KNOWN_VALUES, [None, run.trials[number].user_attrs["latency"]["latency_ms"]])
    run.tell(number, TrialState.PRUNED, None)
    run.log("pruned", trial=number, reason=reason)
    clock.finished_one("measuring")


def fail(run: StudyWriter, number: int, reason: str, watcher: Watcher) -> None:
    run.note(number, "error", reason)
    run.tell(number, TrialState.FAIL, None)
    run.log("failed", trial=number, reason=reason)
    watcher.say(f"trial {number} failed: {reason}")
