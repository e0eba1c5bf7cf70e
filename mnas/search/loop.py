"""The search loop: draw a batch of architectures, measure their latency, train them, and update the controller.

Tan et al., MnasNet (CVPR 2019), section 4.2 and Figure 4. docs/explanation/departures.md lists the departures (closed
batches, latency before training).
"""

import math
import statistics
import time
from dataclasses import replace
from typing import Any

from mnas.controller.closed import ClosedBatches
from mnas.controller.sampler import Reward
from mnas.evaluate.evaluation import Evaluation
from mnas.formats import WEIGHTS_SUFFIX
from mnas.latency.latency import MeasurementError, UnitError
from mnas.objective import Objective, hypervolume
from mnas.search.candidate import candidate_record
from mnas.search.measure import may_be_on_front, measure, measure_trained, shared_latency
from mnas.search.problem import Plan, Problem
from mnas.search.progress import Clock, Watcher
from mnas.search.screening import drop_hopeless, score_features, survey
from mnas.search.start import copy_weights
from mnas.search.steps import evaluated
from mnas.study import DIRECTIONS, Draft, RunError, Standing, StudyWriter, TrialRecord, front_of
from mnas.study.results import NOT_TRAINED, results_of, stored_reference, weights_of
from mnas.workers import PROCESS_DIED, LocalWorkers, Task

CONVERGED_AFTER = 2
"""Number of consecutive updates without a new network after which a search ends."""


def search(run: StudyWriter, problem: Problem, plan: Plan, watcher: Watcher) -> str:
    """Search until a limit of `plan` is reached, and return which one: `trials`, `hours` or `converged`.

    `run` contains the whole state at any time. After a kill, the next call resumes it and ends with the same trials,
    given equal evaluations. The run's first trials may come from `--start-from` (mnas/search/start.py); they belong to
    the batches of their numbers. Raises RunError where the process that trains a reference dies, and UnitError where no
    device remains to measure on. Exceptions of `problem.evaluate` propagate, except for EvaluationError.
    """
    clock = Clock(run, plan, watcher)
    run.set("state", {"status": "running", "reason": ""})
    controller = ClosedBatches(
        plan.controller,
        problem.space.distributions,
        directions=DIRECTIONS,
        seed=plan.seed,
        batch_size=plan.candidates_per_update,
        reward=[_reward_of(objective) for objective in problem.objectives],
        canonical=lambda indices: problem.space.encode(problem.space.decode(indices)),
    )
    try:
        reason = _batches(run, problem, plan, watcher, controller, clock)
    except UnitError as error:
        run.set("state", {"status": "stopped", "reason": str(error)})
        run.log("end", reason=str(error))
        watcher.updated(run)
        raise
    _drop_weights(run, plan)
    status = "stopped" if reason == "hours" else "finished"
    run.set("state", {"status": status, "reason": reason})
    run.log("end", reason=reason)
    watcher.updated(run)
    return reason


def _reward_of(objective: Objective) -> Reward:
    return lambda trial: objective.reward(*trial.values)


def _batches(
    run: StudyWriter, problem: Problem, plan: Plan, watcher: Watcher, controller: ClosedBatches, clock: Clock
) -> str:
    """Run one batch after another until a limit is reached, and return that limit."""
    copy_weights(run, watcher)
    with LocalWorkers(problem.evaluate, plan.workers) as workers:
        _evaluate_references(run, problem, plan, workers, watcher, clock)
        survey(run, problem, plan, workers, watcher, clock)
        _estimate(run, plan, watcher)
        imported = run.standing.imported
        batch = first = imported // plan.candidates_per_update  # earlier batches are closed
        while not (reason := _end_reason(run, plan, clock, batch, imported)):
            following = (batch + 1) * plan.candidates_per_update
            numbers = range(batch * plan.candidates_per_update, min(following, imported + plan.trials))
            try:
                _draw(run, problem, plan, controller, numbers)
                measure(run, problem, plan, numbers, watcher, clock)
                score_features(run, numbers, workers, watcher, clock)
                if not clock.over:
                    drop_hopeless(run, problem, numbers, clock)
                _train(run, problem, workers, numbers, watcher, clock)
                _confirm(run, problem, numbers, watcher, clock)
            finally:
                clock.save()
            if all(run.trials[n].is_finished for n in numbers):
                _close(run, problem, plan, controller, batch, numbers.stop, watcher)
                batch += 1
                if batch == first + 1:
                    _estimate(run, plan, watcher)  # candidates are smaller than the reference
    return reason


def _end_reason(run: StudyWriter, plan: Plan, clock: Clock, batch: int, imported: int) -> str:
    if batch * plan.candidates_per_update >= imported + plan.trials:
        return "trials"
    if clock.over:
        return "hours"
    return "converged" if converged(run, batch, plan.candidates_per_update) else ""


def converged(run: StudyWriter, batch: int, candidates_per_update: int) -> bool:
    """Return whether the last closed batches before `batch` drew only networks of earlier batches.

    Batches with imported or named trials do not count, since the controller did not draw these.
    """
    start = (batch - CONVERGED_AFTER) * candidates_per_update
    drawn = run.trials[max(0, start) : batch * candidates_per_update]
    if start < 0 or any(t.origin or t.name for t in drawn[:1]):
        return False
    first = run.standing.first["identity"]
    return all(first[t.identity] < start for t in drawn)


# The steps of one batch. Each skips what an earlier process has completed.


def _draw(run: StudyWriter, problem: Problem, plan: Plan, controller: ClosedBatches, numbers: range) -> None:
    for number in numbers[max(0, len(run.trials) - numbers.start) :]:
        draw = controller.draw(run.frozen, number)
        candidate = problem.space.decode(problem.space.indices(draw.params))
        record = candidate_record(candidate, number, draw.params, problem, plan)
        run.add(Draft(record=record, distributions=problem.space.distributions, notes=draw.system_attrs))


def _train(
    run: StudyWriter,
    problem: Problem,
    workers: LocalWorkers,
    numbers: range,
    watcher: Watcher,
    clock: Clock,
) -> None:
    """Train the rest of the batch; candidates that have been trained before share the earlier result."""
    measured = [n for n in numbers if not run.trials[n].is_finished and run.trials[n].latency is not None]
    waiting = [n for n in measured if run.trials[n].evaluation is None]
    for number, evaluation in evaluated(run, workers, waiting, "training", watcher, clock):
        _trained(run, problem, numbers, number, evaluation)


def _trained(run: StudyWriter, problem: Problem, numbers: range, number: int, evaluation: Evaluation) -> None:
    """Store the evaluation; finish the trial unless its latency still has to be measured."""
    run.note(number, evaluation=evaluation)
    if not may_be_on_front(run, problem, numbers.start, number):
        _complete(run, problem, number)


def _confirm(run: StudyWriter, problem: Problem, numbers: range, watcher: Watcher, clock: Clock) -> None:
    """Measure trials with a predicted latency that may be on the front, while no training runs, and finish them."""
    waiting = [n for n in numbers if not run.trials[n].is_finished and run.trials[n].evaluation is not None]
    for number in measure_trained(run, problem, waiting, watcher, clock):
        _complete(run, problem, number)


def _complete(run: StudyWriter, problem: Problem, number: int) -> None:
    trial = run.trials[number]
    assert trial.evaluation is not None
    assert trial.latency_ms is not None
    accuracy, latency_ms = trial.evaluation.score(problem.metric), trial.latency_ms
    reward, *others = (objective.reward(accuracy, latency_ms) for objective in problem.objectives)
    rewards = (reward, *others) if others else ()
    run.finish(number, "complete", accuracy=accuracy, reward=reward, rewards=rewards)
    run.log("complete", trial=number, accuracy=accuracy, latency_ms=latency_ms, reward=reward)


def _close(
    run: StudyWriter, problem: Problem, plan: Plan, controller: ClosedBatches, batch: int, stop: int, watcher: Watcher
) -> None:
    """Close the batch that ends before trial `stop`: store the update's figures, delete weights, report the update."""
    if run.attributes.get(f"update:{batch}", {}).get("trials") == stop:  # a larger --trials adds to a batch
        return
    standing = (
        run.standing if stop == len(run.trials) else Standing(run.trials[:stop])
    )  # --trials was larger before: later trials exist
    worst = (1 / problem.num_classes, 2 * problem.slowest_target_ms)
    figures = {
        "trials": stop,
        "hypervolume": hypervolume([t.point for t in standing.front], worst),
        "best_reward": standing.best_reward,
        "diagnostics": controller.close(run.frozen[:stop]),
    }
    run.set(f"update:{batch}", figures)
    _drop_weights(run, plan)
    watcher.updated(run)


def _drop_weights(run: StudyWriter, plan: Plan) -> None:
    """Delete the weights of dominated trials; accuracies and latencies are frozen, so they remain dominated.

    A reference keeps its weights if it is on the front of trials and references. A trial keeps them if only a reference
    dominates it.
    """
    front = [*run.standing.front, *(t for t in front_of(results_of(run)) if t.number < 0)]
    keep = {weights_of(run.path, t) for t in front}
    for path in (run.path / "models").glob(f"*{WEIGHTS_SUFFIX}"):
        if path not in keep:
            path.unlink()
    free_bytes = plan.keep_models_mb * 1e6
    for trial in sorted(front, key=lambda t: math.inf if t.reward is None else -t.reward):
        path = weights_of(run.path, trial)
        if path.exists():
            size_bytes = path.stat().st_size
            if size_bytes <= free_bytes:
                free_bytes -= size_bytes
            else:
                path.unlink()
                run.log("weights dropped", trial=trial.label, keep_models_mb=plan.keep_models_mb)


def _evaluate_references(
    run: StudyWriter, problem: Problem, plan: Plan, workers: LocalWorkers, watcher: Watcher, clock: Clock
) -> None:
    """Measure and train the reference networks; their times also give the first estimate of the search's duration."""
    done: list[dict[str, Any]] = run.attributes.get("references", [])
    for index, (name, candidate) in enumerate(problem.references.items()):
        if index < len(done):
            continue
        clock.show(f"reference {name}")
        start = time.monotonic()
        number = -1 - index
        [(_, measurement)] = problem.measure({number: candidate})
        if isinstance(measurement, MeasurementError):
            raise RunError(
                f"measuring the reference network {name} failed: {measurement}; the search compares candidates with it"
            )
        measure_s = time.monotonic() - start
        latency = shared_latency(problem.sharing, measurement.latencies)
        reference = replace(
            candidate_record(candidate, number, {}, problem, plan),
            reference=name,
            latency=latency,
            latencies=measurement.latencies,
        )
        outcome = _train_reference(run, reference, workers) if problem.trains_references else NOT_TRAINED
        trained = {"error": outcome} if isinstance(outcome, str) else {"evaluation": outcome}
        done = [*done, stored_reference(replace(reference, **trained), measure_s)]
        run.set("references", done)
        failure = outcome if outcome == NOT_TRAINED else f"failed: {outcome}"
        result = failure if isinstance(outcome, str) else f"accuracy {outcome.accuracy:.3f}"
        watcher.say(f"reference {name}: {latency.latency_ms:.3g} ms, {result}")


def _train_reference(run: StudyWriter, reference: TrialRecord, workers: LocalWorkers) -> Evaluation | str:
    """Return the evaluation of a reference, or the reason why its training failed; write its weights to models/."""
    name = reference.label
    task = Task(reference.number, reference.candidate, reference.seed, run.path / "models" / f".{name}.tmp")
    pending = [task]
    [(_, outcome)] = workers.run(lambda: pending.pop() if pending else None)
    if isinstance(outcome, str):
        task.weights_path.unlink(missing_ok=True)
    if outcome == PROCESS_DIED:
        raise RunError(
            f"training the reference network {name} failed: {outcome}; on this machine the candidates would fail too"
        )
    if task.weights_path.exists():  # before the record is stored, so that a recorded reference has its weights
        task.weights_path.replace(weights_of(run.path, reference))
    return outcome


def _estimate(run: StudyWriter, plan: Plan, watcher: Watcher) -> None:
    """Print an estimate of the search's duration from the candidates so far; before the first, from the references."""
    own = run.trials[run.standing.imported :]
    times = [(t.latency.seconds, t.evaluation.train_s) for t in own if t.latency and t.evaluation and t.same_as is None]
    source = f"{len(times)} candidates"
    if not times:
        references = run.attributes.get("references", [])
        times = [(r["measure_s"], r["train_s"]) for r in references if r.get("train_s") is not None]
        source = "the reference network"
    remaining = plan.trials - sum(t.is_finished for t in own)
    if not times or remaining <= 0:
        return
    measure_s, train_s = (statistics.mean(column) for column in zip(*times, strict=True))
    minutes = remaining * (measure_s + train_s / plan.workers) / 60
    watcher.say(
        f"estimate from {source}: {remaining} more candidates take about {math.ceil(minutes)} min "
        f"({measure_s:.1f} s of measuring and {train_s:.1f} s of training each, {plan.workers} in parallel)"
    )
