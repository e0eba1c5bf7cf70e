"""The first step of a batch: measure the latency of its candidates before any of them is trained."""

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


def measure(
    run: StudyWriter, problem: Problem, plan: Plan, numbers: Sequence[int], watcher: Watcher, clock: Clock
) -> None:
    """Measure or predict the latency of those of these trials that lack it, while no training disturbs the device."""
    measured = run.standing.first["latency"]
    unmeasured: dict[str, list[int]] = {}  # graph of a candidate -> numbers of the batch
    for number in numbers:
        trial = run.trials[number]
        if trial.is_finished or _skip_large(run, plan, number, clock):
            continue
        if trial.latency is None:
            graph = trial.graph
            predicted = problem.predict(trial.arch) if problem.predict else None
            if graph in measured:
                twin = run.trials[measured[graph]]
                run.note(number, latencies=twin.latencies, latency=twin.latency)
            elif predicted and _is_enough(problem, plan, predicted):
                _note_latencies(run, problem, number, predicted)
            else:
                unmeasured.setdefault(graph, []).append(number)
                continue
        _skip_slow(run, problem, plan, number, clock)
    for number in _measured(run, problem, unmeasured, watcher, clock):
        _skip_slow(run, problem, plan, number, clock)


def may_be_on_front(run: StudyWriter, problem: Problem, closed: int, number: int) -> bool:
    """Return whether trial `number`, trained with a predicted latency, may be on the front.

    The front is that of the first `closed` trials, so that the order of training does not change the answer.
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
    """Return whether the predictions suffice for now: narrow, on one side of the limit, and no memory limit is set."""
    if plan.max_memory_mb != math.inf:  # predictors do not predict memory
        return False
    limit_ms = plan.latency_limit * problem.slowest_target_ms
    together = shared_latency(problem.sharing, predicted)
    each = choose_to_measure(list(predicted.values()), target_ms=math.inf)
    return not each and not choose_to_measure([together], target_ms=math.inf, limit_ms=limit_ms)


def measure_trained(
    run: StudyWriter, problem: Problem, numbers: Sequence[int], watcher: Watcher, clock: Clock
) -> Iterator[int]:
    """Replace the predicted latencies of trained trials by measured ones; yield each measured number."""
    waiting: dict[str, list[int]] = {}
    for number in numbers:
        waiting.setdefault(run.trials[number].graph, []).append(number)
    yield from _measured(run, problem, waiting, watcher, clock)


def _measured(
    run: StudyWriter, problem: Problem, waiting: Mapping[str, Sequence[int]], watcher: Watcher, clock: Clock
) -> Iterator[int]:
    """Measure candidates (graph -> trials with it); yield each trial whose latency is stored."""
    if not waiting or clock.over:
        return
    clock.show(f"measuring {len(waiting)} architectures")
    outcomes = problem.measure({twins[0]: run.trials[twins[0]].candidate for twins in waiting.values()})
    try:
        for first, outcome in outcomes:
            for number in waiting[run.trials[first].graph]:
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
    """Store all latencies of a trial; `latency` comes last, since a trial that has it counts as measured."""
    run.note(number, latencies=latencies, latency=shared_latency(problem.sharing, latencies))


def shared_latency(sharing: Sharing, latencies: Mapping[str, Latency]) -> Latency:
    """Return the latency that counts: the only device's, or the worst device's record with values from all devices.

    Its source is the least certain one.
    """
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
    reason = over_size(plan, run.trials[number].size_bytes)
    if reason is not None:
        skip(run, number, reason, clock)
    return reason is not None


def _skip_slow(run: StudyWriter, problem: Problem, plan: Plan, number: int, clock: Clock) -> None:
    """Skip the trial if it exceeds the limit on latency or on memory."""
    trial = run.trials[number]
    assert trial.latency is not None
    reason = over_limits(plan, problem.slowest_target_ms, trial.latency, trial.latencies)
    if reason is not None:
        skip(run, number, reason, clock)


def skip(run: StudyWriter, number: int, reason: Skip, clock: Clock) -> None:
    """Finish a trial without training it."""
    run.finish(number, "skipped", skipped=reason)
    run.log("skipped", trial=number, reason=str(reason))
    clock.finished_one("measuring")


def fail(run: StudyWriter, number: int, error: str, watcher: Watcher) -> None:
    """Mark trial `number` as failed, and report why."""
    run.finish(number, "failed", error=error)
    run.log("failed", trial=number, reason=error)
    watcher.say(f"trial {number} failed: {error}")
