"""Print the conclusion of a search: its table, the recommended model, and the uncertainty of that choice."""

import itertools
from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from mnas.data.dataset import Dataset
from mnas.evaluate.baseline import NAMES, baseline_line, not_above_baseline
from mnas.evaluate.evaluation import Metric, accuracy_noise
from mnas.latency.latency import Source
from mnas.names import command_from_parent
from mnas.objective import Objective, best_at_target, why_not_at_target
from mnas.report.devices import SharingCost, sharing_costs
from mnas.report.facts import facts_of, origin_of, skipped_by
from mnas.study import Snapshot, StudyWriter, TrialRecord, count_imported, front_of
from mnas.study.limits import LIMITS
from mnas.study.results import (
    NOT_TRAINED,
    Recommendation,
    images_behind,
    metric_of,
    recommend,
    references_of,
    results_of,
    table_results,
)

ENDED = {
    "trials": "all {trials} candidates are finished",
    "hours": "the time limit is reached; the same command with more --hours resumes the search",
    "converged": "converged: the last updates drew only networks that earlier updates had drawn",
}


def conclude(
    console: Console, run: StudyWriter | Snapshot, reason: str, objectives: Sequence[Objective], dataset: Dataset
) -> None:
    """Print why the search ended, the front, the recommended model with the reason, and the paths of all files."""
    own = run.trials[count_imported(run.trials) :]
    references = references_of(run)
    skipped = _skipped(own)
    results = table_results(run, objectives)
    say = console.print
    say("")
    alone = reason == "trials" and len(own) == 1
    say("the only candidate is finished" if alone else ENDED[reason].format(trials=len(own)))
    if not front_of(run.trials):
        say(_untrained(run, skipped))
        if not results:
            return
    images = images_behind(run, len(dataset.val.labels))
    recommendations = [recommend(run.trials, references, objective, images) for objective in objectives]
    wanted = [each for each in recommendations if each is not None]
    devices = run.attributes["sharing"]["targets_ms"]
    metric = metric_of(run.attributes)
    listed = sorted([*results, *_off_the_front(references, results)], key=_latency_ms)
    advised: dict[bool, list[str]] = {True: [], False: []}  # whether a reference is better
    for objective, each in zip(objectives, recommendations, strict=True):
        if each is not None:
            advised[each.is_reference] += _advice(run, objective, each, images, objectives)
    for line in advised[True]:  # these come first: a published network is better than every trial
        say(line)
    say(_table(listed, devices, objectives, {each.best.number for each in wanted}, NAMES[metric]))
    costs = sharing_costs(facts_of(Snapshot(run.path, run.attributes, run.trials)))
    for line in (
        *advised[False],
        *_significance(metric, dataset, images, wanted[0].best),
        *map(_place, references),
        _sources(listed),
        *_origins(results),
        *([skipped] if skipped else []),
        *_noise(front_of(results_of(run)), wanted[0].best, images),
        *(_sharing(cost, NAMES[metric]) for cost in costs),
    ):
        say(line)
    _say_where(console, run, results)


def _significance(metric: Metric, dataset: Dataset, images: int, best: TrialRecord) -> list[str]:
    """Return the lines on the score of guessing, and on the uncertainty of a score on these images."""
    counts = dataset.val_counts
    lines = [baseline_line(metric, counts, dataset.classes)]
    if warning := not_above_baseline(metric, counts, images, best.point[0]):
        lines.append(warning)
    if images != len(dataset.val.labels):
        rare = "because rare classes have the same weight as others"
        lines.append(f"the {NAMES[metric]} is as uncertain as an accuracy on {images} images, {rare}")
    return lines


def _untrained(run: StudyWriter | Snapshot, skipped: str) -> str:
    """Return the line for a search in which no candidate finished training."""
    failed = sum(t.state == "failed" for t in run.trials)
    facts = [*([skipped] if skipped else []), f"{failed} failed", f"report: {run.path / 'report.html'}"]
    return f"no candidate finished training: {'; '.join(facts)}"


def _say_where(console: Console, run: StudyWriter | Snapshot, results: Sequence[TrialRecord]) -> None:
    """Print where the models of the table are, and which of them are missing."""
    folder = run.path / "front"
    if any(t.evaluation and len(t.evaluation.accuracies) > 1 for t in results):
        console.print("accuracies are means over --repeats trainings; weights and model.tflite are those of the first")
    console.print(f"models: {folder}/TRIAL/model.tflite and arch.json, with the weights of the short training")
    missing = [t for t in results if not (folder / t.label / "model.tflite").exists()]
    if missing:
        names = ", ".join(trial.label for trial in missing)
        data = run.attributes["config"].get("data", "DIR")
        again = command_from_parent(run.path, run.attributes, missing[0]) or f"mnas train {run.path}#{missing[0].label}"
        console.print(
            f"without model.tflite: trial {names}, whose weights are not stored (deleted, over --keep-models-mb, or "
            f"from an earlier version); to train one again: {again} --data {data}"
        )
    console.print(f"report: {run.path / 'report.html'}")
    console.print(f"next, train the best models fully: mnas train {run.path} --top {min(5, len(results))}")


def _latency_ms(trial: TrialRecord) -> float:
    assert trial.latency_ms is not None
    return trial.latency_ms


def _off_the_front(references: Sequence[TrialRecord], results: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the references that are not on the front: dominated, over a limit, or not trained."""
    on_it = {trial.number for trial in results}
    return [reference for reference in references if reference.number not in on_it]


def _place(reference: TrialRecord) -> str:
    """Return the line about a reference, with the reason where it cannot be recommended."""
    line = f"{reference.label} is the reference network, measured and trained like the trials"
    if reference.skipped:
        return f"{line}; it is shown but not recommended: {reference.skipped}"
    if reference.error == NOT_TRAINED:
        return f"{reference.label} is the reference of all latencies; it is {NOT_TRAINED}"
    return f"{line}; its training failed ({reference.error})" if reference.error else line


SIGNS: dict[Source, str] = {"measured": "", "cached": "*", "predicted": "~"}
"""Source of a latency -> the sign after it in the table."""


def _table(
    results: Sequence[TrialRecord],
    devices: Collection[str],
    objectives: Sequence[Objective],
    best: Collection[int],
    name: str,
) -> Table:
    """Return the results, fastest first: an interval for one device, each latency for several; a reward per target."""
    latencies = ["latency ms", "95 %"] if len(devices) == 1 else [f"{device} ms" for device in devices]
    single = len(objectives) == 1
    rewards = ["reward"] if single else [f"reward {objective.target_latency_ms:g} ms" for objective in objectives]
    sizes = ["input px"] if len({trial.input_size for trial in results}) > 1 else []
    names = ["trial", *sizes, name, *latencies, *(["of target"] if single else []), "params", "MACs", *rewards]
    table = Table(*names, box=box.SIMPLE)
    for trial in results:
        measured = list(trial.latencies.values())
        cells = [f"{x.latency_ms:.3f}{SIGNS[x.source]}" for x in measured]
        if len(measured) == 1:
            cells.append(f"{measured[0].low_ms:.3f}-{measured[0].high_ms:.3f}")
        if single:
            cells.append(f"{_latency_ms(trial) / objectives[0].target_latency_ms:.2f}")
        scored = trial.accuracy is not None
        table.add_row(
            trial.label,
            *([str(trial.input_size)] if sizes else []),
            f"{trial.accuracy:.4f}" if scored else "" if trial.error == NOT_TRAINED else "failed",
            *cells,
            f"{trial.params / 1e6:.2f}M",
            f"{trial.macs / 1e6:.1f}M",
            *(f"{objective.reward(*trial.point):.4f}" if scored else "" for objective in objectives),
            style="bold" if trial.number in best else "italic" if trial.reference else "",
        )
    return table


def _sources(front: Sequence[TrialRecord]) -> str:
    """Return the sources of the table's latencies, in words."""
    sources = {latency.source for trial in front for latency in trial.latencies.values()}
    if sources == {"measured"}:
        return "latencies: all measured in this search"
    meanings = {
        "measured": "measured in this search",
        "cached": "* cached from an earlier search",
        "predicted": "~ predicted",
    }
    return f"latencies: {', '.join(meaning for source, meaning in meanings.items() if source in sources)}"


def _origins(front: Sequence[TrialRecord]) -> list[str]:
    """Return the line on start candidates and imported trials on the front; empty if the front has neither."""
    started = [t for t in front if t.number >= 0 and origin_of(t)]
    lines = []
    for words, given in (("--parent", True), ("--start-from", False)):
        if origins := [f"{t.number} is {origin_of(t)}" for t in started if _is_of_parent(t) == given]:
            lines.append(f"from {words}: trial {', '.join(origins)}")
    return lines


def _is_of_parent(trial: TrialRecord) -> bool:
    return bool(trial.parent) and trial.origin is None


def _skipped(trials: list[TrialRecord]) -> str:
    """Return `skipped before training: 3 (latency over --latency-limit)`; empty without skipped trials."""
    groups = ", ".join(f"{len(numbers)} ({LIMITS[limit].group})" for limit, numbers in skipped_by(trials).items())
    return f"skipped before training: {groups}" if groups else ""


def _sharing(cost: SharingCost, name: str) -> str:
    """Return what a device loses by sharing the recommended model."""
    if cost.alone is cost.shared:
        return f"{cost.device}: sharing one model costs nothing, since {cost.shared.title} is also the best here"
    return (
        f"{cost.device}: the best model for this device alone is {cost.alone.title} ({name} {cost.alone.accuracy:.4f}, "
        f"{cost.alone_latency.latency_ms:.3f} ms {cost.alone_latency.source}); sharing {cost.shared.title} "
        f"loses {cost.reward_lost:.4f} of reward ({name} {cost.shared.accuracy:.4f}, "
        f"{cost.shared_latency.latency_ms:.3f} ms {cost.shared_latency.source})"
    )


def _advice(
    run: StudyWriter | Snapshot,
    objective: Objective,
    wanted: Recommendation,
    val_images: int,
    objectives: Sequence[Objective],
) -> list[str]:
    """Return the lines that recommend a result for one target, with the reasons."""
    best, front = wanted.best, front_of(results_of(run))
    name = NAMES[metric_of(run.attributes)]
    target = f" for {objective.target_latency_ms:g} ms" if len(objectives) > 1 else ""
    lines = [
        f"recommended{target}: {best.title}, with the best {objective.form} reward on the front "
        f"({objective.reward(*best.point):.4f}), {_scored(best, objective, name)}"
    ]
    if wanted.is_reference:
        lines = [f"recommended{target}: {_better(wanted, objective, name)}"]
    elif why := why_not_at_target(best.point[1], [t.point[1] for t in front], objective.target_latency_ms):
        complete = [t for t in run.trials if t.state == "complete"]
        place = best_at_target([t.point for t in complete], objective)
        nearer = "" if place is None else _at_target(complete[place], front, objective, name)
        lines.append(f"{why}{nearer}")
    lines += [
        f"{reference.label}, the reference network, does not differ significantly from {best.title} on {val_images} "
        f"validation images: {_scored(reference, objective, name)}"
        for reference in wanted.alike
    ]
    alike = {t.number for t in wanted.alike}
    as_good = [t for t in front if t.point[1] < best.point[1] and best.point[0] - t.point[0] < wanted.noise]
    if as_good and as_good[0].number not in alike:
        fastest = as_good[0]
        lines.append(
            f"{fastest.title} is {best.point[1] / fastest.point[1]:.2f} times as fast, and its {name} does not differ "
            f"significantly on {val_images} validation images"
        )
    return lines


def _scored(trial: TrialRecord, objective: Objective, name: str) -> str:
    """Return `accuracy 0.5660 at 0.99 of the target latency`."""
    of_target = trial.point[1] / objective.target_latency_ms
    return f"{name} {trial.point[0]:.4f} at {of_target:.2f} of the target latency"


def _better(wanted: Recommendation, objective: Objective, name: str) -> str:
    """Return the line on how much better a reference is than every trial, with options that may help."""
    best, trial = wanted.best, wanted.trial
    line = f"{best.label}, the reference network, {_scored(best, objective, name)}"
    if trial is None:
        return f"{line}; no candidate of the search finished training"
    rewards = [objective.reward(*each.point) for each in (best, trial)]
    close = "; the difference is not significant" if abs(best.point[0] - trial.point[0]) < wanted.noise else ""
    return (
        f"{line}; it is better than every trial ({objective.form} reward {rewards[0]:.4f}, against {rewards[1]:.4f} of "
        f"{trial.title}, {_scored(trial, objective, name)}{close}). More --trials or more --epochs may find a better "
        "model"
    )


def _at_target(trial: TrialRecord, front: Sequence[TrialRecord], objective: Objective, name: str) -> str:
    """Return the clause on the best trial at the target, which follows the reason for another choice."""
    of_target = trial.point[1] / objective.target_latency_ms
    place = "" if trial in front else " (not on the front)"
    return (
        f"; the best trial at the target is {trial.number}{place}, {name} {trial.point[0]:.4f} at {of_target:.2f} of it"
    )


def _noise(front: list[TrialRecord], best: TrialRecord, val_images: int) -> list[str]:
    """Return the line on results of the front that are not significantly different."""
    noise = accuracy_noise(best.point[0], val_images)
    close = sum(b.point[0] - a.point[0] < noise for a, b in itertools.pairwise(front))
    if not close:
        return []
    return [
        f"noise: on {val_images} validation images, differences in accuracy below {noise:.3f} are not significant; "
        f"{close} of {len(front) - 1} steps of the front are smaller. More validation images resolve smaller steps"
    ]
