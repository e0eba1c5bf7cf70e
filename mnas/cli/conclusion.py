"""The conclusion that a search prints: its table, the model to take, and how far that can be trusted."""

import itertools
from collections.abc import Collection, Sequence

from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console
from rich.table import Table

from mnas.data.dataset import Dataset
from mnas.evaluate.baseline import NAMES, baseline_line, not_above_baseline
from mnas.evaluate.evaluation import accuracy_noise
from mnas.latency.latency import Latency, Source
from mnas.objective import Objective, best_at_target, why_not_at_target
from mnas.report.devices import SharingCost, sharing_costs
from mnas.report.facts import facts_of, origin_of, skipped_by
from mnas.study import Snapshot, StudyWriter, count_taken, front_of
from mnas.study.results import (
    REFERENCE,
    Recommendation,
    images_behind,
    label_of,
    metric_of,
    recommend,
    references_of,
    results_of,
    shown_results,
    title_of,
)

ENDED = {
    "trials": "all {trials} candidates are done",
    "hours": "the hours are over; the same command with more --hours goes on",
    "converged": "converged: the last updates drew only networks already known",
}


def conclude(
    console: Console, run: StudyWriter | Snapshot, reason: str, objectives: Sequence[Objective], dataset: Dataset
) -> None:
    """Print why the search ended, the front, which model to take and why, and where everything is."""
    own = run.trials[count_taken(run.trials) :]
    references = references_of(run)
    skipped = _skipped(own)
    shown = shown_results(run, objectives)
    say = console.print
    say("")
    say(ENDED[reason].format(trials=len(own)))
    if not front_of(run.trials):
        say(_untrained(run, skipped))
        if not shown:
            return
    images = images_behind(run, len(dataset.val.labels))
    counts = dataset.val_counts
    metric = metric_of(run.attributes)
    found = [recommend(run.trials, references, objective, images) for objective in objectives]
    wanted = [each for each in found if each is not None]
    best = {each.best.number for each in wanted}
    devices = run.attributes["sharing"]["targets_ms"]
    listed = sorted([*shown, *_off_the_front(references, shown)], key=lambda t: t.user_attrs["latency"]["latency_ms"])
    advised: dict[bool, list[str]] = {True: [], False: []}  # by whether a reference is better
    for objective, each in zip(objectives, found, strict=True):
        if each is not None:
            advised[each.is_reference] += _advice(run, objective, each, images, objectives)
    for line in advised[True]:  # before all else: a published network is better than what was found
        say(line)
    say(_table(listed, devices, objectives, best, NAMES[metric]))
    for line in advised[False]:
        say(line)
    say(baseline_line(metric, counts, dataset.classes))
    if warning := not_above_baseline(metric, counts, images, wanted[0].best.values[0]):
        say(warning)
    if images != len(dataset.val.labels):
        say(f"the {NAMES[metric]} is as uncertain as a share of {images} images, as rare classes count like others")
    for line in (
        *map(_place, references),
        _sources(listed),
        *_origins(shown),
        *([skipped] if skipped else []),
        *_noise(front_of(results_of(run)), wanted[0].best, images),
        *(
            _sharing(cost, NAMES[metric])
            for cost in sharing_costs(facts_of(Snapshot(run.path, run.attributes, run.trials)))
        ),
    ):
        say(line)
    _say_where(console, run, shown)


def _untrained(run: StudyWriter | Snapshot, skipped: str) -> str:
    """Return the line for a search of which no candidate was trained to the end."""
    failed = sum(t.state == TrialState.FAIL for t in run.trials)
    facts = [*([skipped] if skipped else []), f"{failed} failed", f"report: {run.path / 'report.html'}"]
    return f"no candidate was trained to the end: {'; '.join(facts)}"


def _say_where(console: Console, run: StudyWriter | Snapshot, shown: Sequence[FrozenTrial]) -> None:
    """Print where the models of the table are, and which of them are missing."""
    folder = run.path / "front"
    if any(len(t.user_attrs["evaluation"]["accuracies"]) > 1 for t in shown):
        console.print("accuracies are means over --repeats; weights and model.tflite are the first training's")
    console.print(f"models: {folder}/TRIAL/model.tflite and arch.json")
    missing = [label_of(t) for t in shown if not (folder / label_of(t) / "model.tflite").exists()]
    if missing:
        console.print(
            f"without model.tflite: trial {', '.join(missing)} (weights in models/ deleted, or over --keep-models-mb, "
            "or not kept by an earlier version); train one again with "
            f"mnas train {run.path}#{missing[0]} --data {run.attributes['config'].get('data', 'DIR')}"
        )
    console.print(f"report: {run.path / 'report.html'}")


def _off_the_front(references: Sequence[FrozenTrial], shown: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the references that are not on the front: dominated, over a limit, or not trained."""
    on_it = {trial.number for trial in shown}
    return [reference for reference in references if reference.number not in on_it]


def _place(reference: FrozenTrial) -> str:
    """Return the line about a reference, with the reason where it cannot be recommended."""
    told = f"{label_of(reference)} is the reference network, measured and trained like the trials"
    known = reference.user_attrs
    if "skipped" in known:
        return f"{told}; it is shown but not recommended: {known['skipped']}"
    return f"{told}; its training failed ({known['error']})" if "error" in known else told


SIGNS: dict[Source, str] = {"measured": "", "cached": "*", "predicted": "~"}
"""What a latency in the table ends with."""


def _table(
    shown: Sequence[FrozenTrial],
    devices: Collection[str],
    objectives: Sequence[Objective],
    best: Collection[int],
    name: str,
) -> Table:
    """The results, fastest first; for one device its interval, for several each one's latency; a reward a target."""
    latencies = ["latency ms", "95 %"] if len(devices) == 1 else [f"{device} ms" for device in devices]
    single = len(objectives) == 1
    rewards = ["reward"] if single else [f"reward {objective.target_latency_ms:g} ms" for objective in objectives]
    names = ["trial", name, *latencies, *(["of target"] if single else []), "params", "MACs", *rewards]
    table = Table(*names, box=box.SIMPLE)
    for trial in shown:
        told = [Latency.from_dict(x) for x in trial.user_attrs["latencies"].values()]
        cells = [f"{x.latency_ms:.3f}{SIGNS[x.source]}" for x in told]
        if len(told) == 1:
            cells.append(f"{told[0].low_ms:.3f}-{told[0].high_ms:.3f}")
        if single:
            latency_ms = trial.user_attrs["latency"]["latency_ms"]
            cells.append(f"{latency_ms / objectives[0].target_latency_ms:.2f}")
        scored = trial.values is not None
        table.add_row(
            label_of(trial),
            f"{trial.values[0]:.4f}" if scored else "failed",
            *cells,
            f"{trial.user_attrs['params'] / 1e6:.2f}M",
            f"{trial.user_attrs['macs'] / 1e6:.1f}M",
            *(f"{objective.reward(*trial.values):.4f}" if scored else "" for objective in objectives),
            style="bold" if trial.number in best else "italic" if REFERENCE in trial.user_attrs else "",
        )
    return table


def _sources(front: Sequence[FrozenTrial]) -> str:
    """What the table's latencies are."""
    sources = {latency["source"] for trial in front for latency in trial.user_attrs["latencies"].values()}
    if sources == {"measured"}:
        return "latencies: all measured in this search"
    meanings = {
        "measured": "measured in this search",
        "cached": "* measured in an earlier one",
        "predicted": "~ predicted",
    }
    return f"latencies: {', '.join(meaning for source, meaning in meanings.items() if source in sources)}"


def _origins(front: Sequence[FrozenTrial]) -> list[str]:
    """Which of the front are networks that the search was begun with, or another run's trials."""
    known = [f"{t.number} is {origin}" for t in front if t.number >= 0 and (origin := origin_of(t))]
    return [f"begun with: trial {', '.join(known)}"] if known else []


def _skipped(trials: list[FrozenTrial]) -> str:
    """`skipped before training: 3 (latency over --latency-limit)`; empty where nothing was."""
    groups = ", ".join(f"{len(numbers)} ({reason})" for reason, numbers in skipped_by(trials).items())
    return f"skipped before training: {groups}" if groups else ""


def _sharing(cost: SharingCost, name: str) -> str:
    """What one device loses by sharing the recommended model."""
    if cost.alone is cost.shared:
        return f"{cost.device}: sharing costs nothing, {cost.shared.title} is also the best for it alone"
    return (
        f"{cost.device}: the best for it alone is {cost.alone.title} ({name} {cost.alone.accuracy:.4f}, "
        f"{cost.alone_latency.latency_ms:.3f} ms {cost.alone_latency.source}); sharing {cost.shared.title} "
        f"costs it {cost.reward_lost:.4f} of reward ({name} {cost.shared.accuracy:.4f}, "
        f"{cost.shared_latency.latency_ms:.3f} ms {cost.shared_latency.source})"
    )


def _advice(
    run: StudyWriter | Snapshot,
    objective: Objective,
    wanted: Recommendation,
    val_images: int,
    objectives: Sequence[Objective],
) -> list[str]:
    """Which result to take for a target, and why; where a reference is better than what was found, that first."""
    best, front = wanted.best, front_of(results_of(run))
    name = NAMES[metric_of(run.attributes)]
    target = f"for {objective.target_latency_ms:g} ms " if len(objectives) > 1 else ""
    lines = [
        f"{target}take {title_of(best)}: the best {objective.form} reward on the front "
        f"({objective.reward(*best.values):.4f}), {_scored(best, objective, name)}"
    ]
    if wanted.is_reference:
        lines = [f"{target}{_better(wanted, objective, name)}"]
    elif why := why_not_at_target(best.values[1], [t.values[1] for t in front], objective.target_latency_ms):
        complete = [t for t in run.trials if t.state == TrialState.COMPLETE]
        place = best_at_target([(t.values[0], t.values[1]) for t in complete], objective)
        nearer = "" if place is None else _at_target(complete[place], objective, name)
        lines.append(f"{why}{nearer}")
    lines += [
        f"{label_of(reference)}, the reference network, cannot be told apart from {title_of(best)} with {val_images} "
        f"validation images: {_scored(reference, objective, name)}"
        for reference in wanted.alike
    ]
    alike = {t.number for t in wanted.alike}
    as_good = [t for t in front if t.values[1] < best.values[1] and best.values[0] - t.values[0] < wanted.noise]
    if as_good and as_good[0].number not in alike:
        fastest = as_good[0]
        lines.append(
            f"{title_of(fastest)} is {best.values[1] / fastest.values[1]:.2f} times as fast, and its {name} "
            f"cannot be told apart with {val_images} validation images"
        )
    return lines


def _scored(trial: FrozenTrial, objective: Objective, name: str) -> str:
    """`accuracy 0.5660 at 0.99 of the target latency`."""
    of_target = trial.values[1] / objective.target_latency_ms
    return f"{name} {trial.values[0]:.4f} at {of_target:.2f} of the target latency"


def _better(wanted: Recommendation, objective: Objective, name: str) -> str:
    """Return the line that says how much better a reference is than what was found, and what may help."""
    best, found = wanted.best, wanted.found
    told = f"take {label_of(best)}, the reference network, {_scored(best, objective, name)}"
    if found is None:
        return f"{told}: the search found nothing that could be trained to the end"
    rewards = [objective.reward(*trial.values) for trial in (best, found)]
    close = "; the difference is within noise" if abs(best.values[0] - found.values[0]) < wanted.noise else ""
    return (
        f"{told}: it is better than everything that the search found ({objective.form} reward {rewards[0]:.4f} against "
        f"{rewards[1]:.4f} of {title_of(found)}, {_scored(found, objective, name)}{close}); more --trials or a longer "
        "training of each (--epochs) may find better ones"
    )


def _at_target(trial: FrozenTrial, objective: Objective, name: str) -> str:
    """To follow why another one is taken."""
    of_target = trial.values[1] / objective.target_latency_ms
    return f"; the best at it is trial {trial.number}, {name} {trial.values[0]:.4f} at {of_target:.2f} of it"


def _noise(front: list[FrozenTrial], best: FrozenTrial, val_images: int) -> list[str]:
    """Where the front cannot be told from chance."""
    noise = accuracy_noise(best.values[0], val_images)
    close = sum(b.values[0] - a.values[0] < noise for a, b in itertools.pairwise(front))
    if not close:
        return []
    return [
        f"noise: with {val_images} validation images accuracies less than {noise:.3f} apart are the same; "
        f"{close} of {len(front) - 1} steps of the front are smaller (more images tell them apart)"
    ]
