"""What a search leaves behind when it ends: the front's models as files, its table, and what to take."""

import itertools
import shutil
from collections.abc import Collection, Sequence

from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console
from rich.table import Table

from mnas.architecture import architecture_from_dict
from mnas.atomic import write_atomic
from mnas.data.dataset import Dataset
from mnas.evaluate.evaluation import accuracy_noise
from mnas.latency.latency import Latency, Source
from mnas.objective import Objective, best_at_target, why_not_at_target
from mnas.report.devices import SharingCost, sharing_costs
from mnas.report.facts import facts_of, origin_of, skipped_by
from mnas.study import Run, Snapshot, best_for, count_taken, front_of
from mnas.tflite.metadata import Normalisation
from mnas.tflite.writer import write_tflite
from mnas.training_data import after_training


def export_front(run: Run, dataset: Dataset) -> None:
    """Write front/N/arch.json for every trial N on the front, and model.tflite where its weights were kept."""
    from mnas.nn.weights import load_weights

    folder = run.path / "front"
    folder.mkdir(exist_ok=True)
    front = {str(t.number): t for t in front_of(run.trials)}
    for stale in folder.iterdir():
        if stale.name not in front:
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    for name, trial in front.items():
        (folder / name).mkdir(exist_ok=True)
        write_atomic(folder / name / "arch.json", architecture_from_dict(trial.user_attrs["arch"]).to_json())
        weights = run.weights_path(trial.number)
        if not weights.exists():
            continue
        network = load_weights(weights)
        model = write_tflite(
            network,
            dataset.input_size,
            labels=dataset.classes,
            normalisation=Normalisation(mean=dataset.mean, std=dataset.std),
            trained_on=after_training(dataset.training_data, ()),
        )
        write_atomic(folder / name / "model.tflite", model)


ENDED = {
    "trials": "all {trials} candidates are done",
    "hours": "the hours are over; the same command with more --hours goes on",
    "converged": "converged: the last updates drew only networks already known",
}


def conclude(
    console: Console, run: Run | Snapshot, reason: str, objectives: Sequence[Objective], dataset: Dataset
) -> None:
    """Print why the search ended, the front, which model to take and why, and where everything is."""
    own = run.trials[count_taken(run.trials) :]
    console.print()
    console.print(f"{ENDED[reason].format(trials=len(own))}")
    front = front_of(run.trials)
    skipped = _skipped(own)
    if not front:
        failed = sum(t.state == TrialState.FAIL for t in run.trials)
        told = [*([skipped] if skipped else []), f"{failed} failed", f"report: {run.path / 'report.html'}"]
        console.print(
            f"no candidate was trained to the end: {'; '.join(told)}",
        )
        return
    complete = [t for t in run.trials if t.state == TrialState.COMPLETE]
    console.print(_table(front, run.attributes["sharing"]["targets_ms"], objectives))
    images = len(dataset.val.labels)
    costs = sharing_costs(facts_of(Snapshot(run.path, run.attributes, run.trials)))
    for line in (
        _sources(front),
        *_origins(front),
        *([skipped] if skipped else []),
        *(line for objective in objectives for line in _advice(complete, objective, images, objectives)),
        *_noise(front, best_for(front, objectives[0]), images),
        *map(_sharing, costs),
    ):
        console.print(line)
    folder = run.path / "front"
    if any(len(t.user_attrs["evaluation"]["accuracies"]) > 1 for t in front):
        console.print("accuracies are means over --repeats; weights and model.tflite are the first training's")
    console.print(f"models: {folder}/TRIAL/model.tflite and arch.json")
    if missing := [str(t.number) for t in front if not (folder / str(t.number) / "model.tflite").exists()]:
        console.print(
            f"without model.tflite: trial {', '.join(missing)} (weights in models/ deleted, or over --keep-models-mb)",
        )
    console.print(f"report: {run.path / 'report.html'}")


SIGNS: dict[Source, str] = {"measured": "", "cached": "*", "predicted": "~"}
"""What a latency in the table ends with."""


def _table(front: list[FrozenTrial], devices: Collection[str], objectives: Sequence[Objective]) -> Table:
    """The front, fastest first; for one device its interval, for several each one's latency; a reward a target."""
    latencies = ["latency ms", "95 %"] if len(devices) == 1 else [f"{device} ms" for device in devices]
    single = len(objectives) == 1
    rewards = ["reward"] if single else [f"reward {objective.target_latency_ms:g} ms" for objective in objectives]
    names = ["trial", "accuracy", *latencies, *(["of target"] if single else []), "params", "MACs", *rewards]
    best = {best_for(front, objective).number for objective in objectives}
    table = Table(*names, box=box.SIMPLE)
    for trial in front:
        told = [Latency.from_dict(x) for x in trial.user_attrs["latencies"].values()]
        shown = [f"{x.latency_ms:.3f}{SIGNS[x.source]}" for x in told]
        if len(told) == 1:
            shown.append(f"{told[0].low_ms:.3f}-{told[0].high_ms:.3f}")
        if single:
            shown.append(f"{trial.values[1] / objectives[0].target_latency_ms:.2f}")
        cells = [
            str(trial.number),
            f"{trial.values[0]:.4f}",
            *shown,
            f"{trial.user_attrs['params'] / 1e6:.2f}M",
            f"{trial.user_attrs['macs'] / 1e6:.1f}M",
            *(f"{objective.reward(*trial.values):.4f}" for objective in objectives),
        ]
        table.add_row(*cells, style="bold" if trial.number in best else "")
    return table


def _sources(front: list[FrozenTrial]) -> str:
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


def _origins(front: list[FrozenTrial]) -> list[str]:
    """Which of the front are networks that the search was begun with, or another run's trials."""
    known = [f"{t.number} is {origin}" for t in front if (origin := origin_of(t))]
    return [f"begun with: trial {', '.join(known)}"] if known else []


def _skipped(trials: list[FrozenTrial]) -> str:
    """`skipped before training: 3 (latency over --latency-limit)`; empty where nothing was."""
    groups = ", ".join(f"{len(numbers)} ({reason})" for reason, numbers in skipped_by(trials).items())
    return f"skipped before training: {groups}" if groups else ""


def _sharing(cost: SharingCost) -> str:
    """What one device loses by sharing the recommended model."""
    if cost.alone is cost.shared:
        return f"{cost.device}: sharing costs nothing, trial {cost.shared.number} is also the best for it alone"
    return (
        f"{cost.device}: the best for it alone is trial {cost.alone.number} (accuracy {cost.alone.accuracy:.4f}, "
        f"{cost.alone_latency.latency_ms:.3f} ms {cost.alone_latency.source}); sharing trial {cost.shared.number} "
        f"costs it {cost.reward_lost:.4f} of reward (accuracy {cost.shared.accuracy:.4f}, "
        f"{cost.shared_latency.latency_ms:.3f} ms {cost.shared_latency.source})"
    )


def _advice(
    complete: Sequence[FrozenTrial], objective: Objective, val_images: int, objectives: Sequence[Objective]
) -> list[str]:
    """Which model of the front to take for a target, and why."""
    front = front_of(complete)
    best = best_for(front, objective)
    target = f"for {objective.target_latency_ms:g} ms " if len(objectives) > 1 else ""
    lines = [
        f"{target}take trial {best.number}: the best {objective.form} reward on the front "
        f"({objective.reward(*best.values):.4f}), accuracy {best.values[0]:.4f} at "
        f"{best.values[1] / objective.target_latency_ms:.2f} of the target latency"
    ]
    if why := why_not_at_target(best.values[1], [t.values[1] for t in front], objective.target_latency_ms):
        place = best_at_target([(t.values[0], t.values[1]) for t in complete], objective)
        nearer = "" if place is None else _at_target(complete[place], objective)
        lines.append(f"{why}{nearer}")
    noise = accuracy_noise(best.values[0], val_images)
    as_good = [t for t in front if t.values[1] < best.values[1] and best.values[0] - t.values[0] < noise]
    if as_good:
        fastest = as_good[0]
        lines.append(
            f"trial {fastest.number} is {best.values[1] / fastest.values[1]:.2f} times as fast, and its accuracy "
            f"cannot be told apart with {val_images} validation images"
        )
    return lines


def _at_target(trial: FrozenTrial, objective: Objective) -> str:
    """To follow why another one is taken."""
    of_target = trial.values[1] / objective.target_latency_ms
    return f"; the best at it is trial {trial.number}, accuracy {trial.values[0]:.4f} at {of_target:.2f} of it"


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
