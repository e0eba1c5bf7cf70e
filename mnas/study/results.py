"""The results of a search: its trials, and the reference networks that it measured and trained like them.

A reference is a result like any other: it stands in the table, on the front where it belongs, with its weights and its
export, and is recommended where it is better than what was found. It is no trial: controllers see the study's trials
alone, so that the same seed gives the same trials with any references. Its record is in the run's attribute
`references`; here it becomes a FrozenTrial with a number below 0 and its name in the attribute `reference`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from mnas.architecture import Architecture, architecture_from_dict
from mnas.evaluate.evaluation import Evaluation, Metric, accuracy_noise, effective_images
from mnas.formats import WEIGHTS_SUFFIX
from mnas.latency.latency import Latency
from mnas.objective import Objective
from mnas.space.named import space_from_dict
from mnas.study.check import RunError
from mnas.study.limits import StoredLimits, over_limits, over_size
from mnas.study.read import Snapshot, best_for, front_of, objectives_of
from mnas.study.run import StudyWriter
from mnas.zoo.architectures import reference_arch

REFERENCE = "reference"
"""The attribute that holds the name of a result that is a reference network."""


def metric_of(attributes: Mapping[str, Any]) -> Metric:
    """Return the score that a run maximises; plain accuracy in runs that were made before the choice."""
    metric: Metric = attributes.get("config", {}).get("metric", "accuracy")
    return metric


def val_counts(attributes: Mapping[str, Any]) -> list[int]:
    """Return the validation images of each class; empty in runs that were made before they were kept."""
    return list(attributes.get("val_counts", []))


def reference_record(
    name: str,
    arch: Architecture,
    *,
    seed: int,
    costs: Mapping[str, int],
    latency: Latency,
    latencies: Mapping[str, Latency],
    evaluation: Evaluation | str,
    measure_s: float,
) -> dict[str, Any]:
    """Return a run's record of a reference; `evaluation` is the reason where its training failed."""
    scored = None if isinstance(evaluation, str) else evaluation
    return {
        "name": name,
        "arch": arch.to_dict(),
        "fingerprint": arch.fingerprint,
        "seed": seed,
        **costs,
        "latency": latency.to_dict(),
        "latencies": {device: told.to_dict() for device, told in latencies.items()},
        "accuracy": scored.accuracy if scored else None,
        "evaluation": scored.to_dict() if scored else None,
        **({} if scored else {"error": evaluation}),
        "measure_s": measure_s,
        "train_s": scored.train_s if scored else None,
    }


def references_of(run: StudyWriter | Snapshot) -> list[FrozenTrial]:
    """The run's references: COMPLETE, PRUNED (over a limit: shown, not recommended) or FAIL (training failed)."""
    records = run.attributes.get("references", [])
    return [_reference(run.attributes, record, -1 - index) for index, record in enumerate(records)]


def _reference(attributes: Mapping[str, Any], record: Mapping[str, Any], number: int) -> FrozenTrial:
    arch = _arch_of(attributes, record)
    limits, objectives = StoredLimits(attributes.get("config", {})), objectives_of(attributes)
    slowest_ms = max((objective.target_latency_ms for objective in objectives), default=0.0)
    evaluation = _evaluation_of(attributes, record)
    known = {
        REFERENCE: record["name"],
        "params": record["params"],
        "macs": record["macs"],
        "size_bytes": record.get("size_bytes", 0),  # 0: not known
        "latency": record["latency"],
        "latencies": record["latencies"],
    }
    if arch is not None:
        known |= {"arch": arch.to_dict(), "fingerprint": arch.fingerprint}
    over = over_size(limits, known["size_bytes"])
    if objectives:
        over = over or over_limits(limits, slowest_ms, record["latency"], record["latencies"])
    values = None
    state = TrialState.FAIL if evaluation is None or arch is None else TrialState.COMPLETE
    if evaluation is None:
        known["error"] = record.get("error", "for a reason that was not kept")
    else:
        values = [evaluation.score(metric_of(attributes)), record["latency"]["latency_ms"]]
        known["evaluation"] = evaluation.to_dict()
        if rewards := [objective.reward(*values) for objective in objectives]:
            known["reward"] = rewards[0]
            known |= {"rewards": rewards} if len(rewards) > 1 else {}
        if over:
            state, known["skipped"] = TrialState.PRUNED, over
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=None,
        values=values,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs=known,
        system_attrs={},
        intermediate_values={},
    )


def _arch_of(attributes: Mapping[str, Any], record: Mapping[str, Any]) -> Architecture | None:
    """Return the stored architecture; for older runs MobileNetV2 on the space's skeleton, which they measured."""
    if "arch" in record:
        return architecture_from_dict(record["arch"])
    if record["name"] == "mobilenetv2" and "space" in attributes.get("config", {}):
        return reference_arch(space_from_dict(attributes["config"]["space"]).reference_skeleton)
    return None


def _evaluation_of(attributes: Mapping[str, Any], record: Mapping[str, Any]) -> Evaluation | None:
    if record.get("evaluation") is not None:
        return Evaluation.from_dict(record["evaluation"])
    if record["accuracy"] is None:
        return None
    return Evaluation(
        accuracy=record["accuracy"],
        accuracies=(record["accuracy"],),
        val_images=int(attributes.get("provenance", {}).get("data", {}).get("val_images", 0)),
        train_s=record.get("train_s") or 0.0,
        images_per_s=0.0,
        epochs=0,
    )


def results_of(run: StudyWriter | Snapshot) -> list[FrozenTrial]:
    """Return trials and references; their front is `front_of` this."""
    return [*run.trials, *references_of(run)]


def label_of(trial: FrozenTrial) -> str:
    """`17`, or a reference's name: what comes after # in runs/NAME#17, and the name of its files and folders."""
    return str(trial.user_attrs.get(REFERENCE, trial.number))


def title_of(trial: FrozenTrial) -> str:
    """`trial 17`, or a reference's name."""
    return str(trial.user_attrs[REFERENCE]) if REFERENCE in trial.user_attrs else f"trial {trial.number}"


def weights_of(run: Path, trial: FrozenTrial) -> Path:
    """Return the path of the weights that the search trained; they may not have been kept."""
    return run / "models" / f"{label_of(trial)}{WEIGHTS_SUFFIX}"


def find_result(run: Snapshot, label: str) -> FrozenTrial:
    """The trial of that number, or the reference of that name.

    Raises:
        RunError: no such result; the line lists the results.
    """
    if label.isdecimal():
        if int(label) < len(run.trials):
            return run.trials[int(label)]
        raise RunError(f"{run.path} has the trials 0 to {len(run.trials) - 1}, but got {label}")
    found = {label_of(reference): reference for reference in references_of(run)}
    if label not in found:
        have = f" and the reference {', '.join(found)}" if found else " and no reference network yet"
        raise RunError(f"{run.path} has the trials 0 to {len(run.trials) - 1}{have}, but got {label!r}")
    if "arch" not in found[label].user_attrs:
        raise RunError(f"{run.path} keeps no architecture of {label}, as it was made by an earlier version")
    return found[label]


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """Which result to take for one target."""

    best: FrozenTrial
    """To take: a trial, or a reference that is better than what was found."""
    found: FrozenTrial | None
    """The trial of the highest reward on the front of all trials; None where none was trained to the end."""
    noise: float
    """The smallest difference from the accuracy of `best` that 95 % confidence takes for real; 0 where unknown."""
    alike: tuple[FrozenTrial, ...]
    """References that are not `best`, no slower than it, and no further from its accuracy than `noise`."""

    @property
    def is_reference(self) -> bool:
        """Whether a reference is better than what was found."""
        return REFERENCE in self.best.user_attrs


def recommend(
    trials: Sequence[FrozenTrial], references: Sequence[FrozenTrial], objective: Objective, val_images: int
) -> Recommendation | None:
    """Return the result to take for one target; None where nothing was trained to the end.

    The trial with the highest reward, unless a reference is better: by its reward, or by its accuracy at no more
    latency. A reference that is over a limit of the search, or dominated by a trial, is not better.
    """
    front = front_of(trials)
    found = best_for(front, objective) if front else None
    compared = [reference for reference in references if reference.state == TrialState.COMPLETE]
    on_front = {result.number for result in front_of([*trials, *compared])}
    better = [
        reference
        for reference in compared
        if reference.number in on_front and (found is None or _is_better(reference, found, objective))
    ]
    best = best_for(better, objective) if better else found
    if best is None:
        return None
    noise = accuracy_noise(best.values[0], val_images) if val_images else 0.0
    alike = tuple(
        reference
        for reference in compared
        if reference is not best
        and reference.values[1] <= best.values[1]
        and abs(reference.values[0] - best.values[0]) < noise
    )
    return Recommendation(best=best, found=found, noise=noise, alike=alike)


def _is_better(reference: FrozenTrial, found: FrozenTrial, objective: Objective) -> bool:
    accuracy, latency_ms = reference.values
    no_worse = accuracy >= found.values[0] and latency_ms <= found.values[1]
    dominates = no_worse and [accuracy, latency_ms] != list(found.values)
    return dominates or objective.reward(accuracy, latency_ms) > objective.reward(*found.values)


def shown_results(run: StudyWriter | Snapshot, objectives: Sequence[Objective]) -> list[FrozenTrial]:
    """Return the results that a search prints and exports to front/, fastest first.

    These are the front of trials and references, and for each target the best trial where a reference dominates it.
    """
    results = results_of(run)
    shown = {trial.number: trial for trial in front_of(results)}
    if found := front_of(run.trials):
        shown |= {best.number: best for best in (best_for(found, objective) for objective in objectives)}
    return sorted(shown.values(), key=lambda trial: (trial.values[1], -trial.values[0], trial.number))


def images_behind(run: StudyWriter | Snapshot, val_images: int) -> int:
    """Return how many images the metric's noise corresponds to: all, or fewer where unequal classes count alike."""
    counts = val_counts(run.attributes)
    metric = metric_of(run.attributes)
    return effective_images(metric, counts) if counts and metric != "accuracy" else val_images
