"""The first step of a batch: the latency of its candidates, before any of them is trained."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from mnas.latency.latency import Latency, MeasurementError, joint_source
from mnas.latency.prediction.predictor import choose_to_measure
from mnas.objective import Sharing
from mnas.search.problem import Plan, Problem
from mnas.search.progress import Clock, Watcher
from mnas.study import StudyWriter, front_of
from mnas.study.limits import Skip, over_limits, over_size


def measure(run: StudyWriter, problem: Problem, plan: Plan, numbers: range, watcher: Watcher, clock: Clock) -> None:
    """Measure, or predict, the rest of the batch; before any training, so that nothing else runs meanwhile."""
    measured = run.standing.first["latency"]
    unmeasured: dict[str, list[int]] = {}  # fingerprint -> numbers of the batch
    for number in numbers:
        trial = run.trials[number]
        if trial.is_finished or _skip_large(run, plan, number, clock):
            continue
        if trial.latency is None:
            predicted = problem.predict(trial.arch) if problem.predict else None
            if trial.fingerprint in measured:
                twin = run.trials[measured[trial.fingerprint]]
                run.note(number, latencies=twin.latencies, latency=twin.latency)
            elif predicted and _is_enough(problem, plan, predicted):
                _note_latencies(run, problem, number, predicted)
            else:
                unmeasured.setdefault(trial.fingerprint, []).append(number)
                continue
        _skip_slow(run, problem, plan, number, clock)
    for number in _measured(run, problem, unmeasured, watcher, clock):
        _skip_slow(run, problem, plan, number, clock)


def may_be_on_front(run: StudyWriter, problem: Problem, closed: int, number: int) -> bool:
    """Whether the latency of the trained trial `number` was only predicted, and may be good enough for the front.

    The front is that of the first `closed` trials, so that the answer does not depend on who is trained first.
    """
    trial = run.trials[number]
    assert trial.latency is not None
    assert trial.evaluation is not None
    if trial.latency.source != "predicted":
        return False
    chosen = choose_to_measure(
        [trial.latency],
        target_ms=problem.objective.target_latency_ms,
        front=[other.point for other in front_of(run.trials[:closed])],
        accuracies=[trial.evaluation.score(problem.metric)],
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
        waiting.setdefault(run.trials[number].fingerprint, []).append(number)
    yield from _measured(run, problem, waiting, watcher, clock)


def _measured(
    run: StudyWriter, problem: Problem, waiting: Mapping[str, Sequence[int]], watcher: Watcher, clock: Clock
) -> Iterator[int]:
    """Measure architectures (fingerprint -> the trials that are it); yields each trial whose latency is now noted."""
    if not waiting or clock.over:
        return
    clock.show(f"measuring {len(waiting)} architectures")
    archs = {twins[0]: run.trials[twins[0]].arch for twins in waiting.values()}
    outcomes = problem.measure(archs)
    try:
        for first, outcome in outcomes:
            for number in waiting[run.trials[first].fingerprint]:
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
    """Store the latency that counts last: with it the trial is measured."""
    run.note(number, latencies=latencies, latency=shared_latency(problem.sharing, latencies))


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
    skip = over_size(plan, run.trials[number].size_bytes)
    if skip is not None:
        _skip(run, number, skip, clock)
    return skip is not None


def _skip_slow(run: StudyWriter, problem: Problem, plan: Plan, number: int, clock: Clock) -> None:
    """Or one that takes too much memory."""
    trial = run.trials[number]
    assert trial.latency is not None
    skip = over_limits(plan, problem.slowest_target_ms, trial.latency, trial.latencies)
    if skip is not None:
        _skip(run, number, skip, clock)


def _skip(run: StudyWriter, number: int, skip: Skip, clock: Clock) -> None:
    run.finish(number, "skipped", skipped=skip)
    run.log("skipped", trial=number, reason=str(skip))
    clock.finished_one("measuring")


def fail(run: StudyWriter, number: int, error: str, watcher: Watcher) -> None:
    """End a trial by its own failure."""
    run.finish(number, "failed", error=error)
    run.log("failed", trial=number, reason=error)
    watcher.say(f"trial {number} failed: {error}")
