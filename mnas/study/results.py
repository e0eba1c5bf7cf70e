"""The results of a search: its trials, and the reference networks, which it measures and trains in the same way.

A reference is a result like any other: it is in the table, on the front where it belongs, has weights and an export,
and is recommended where it is better than every trial. It is not a trial: controllers see only the study's trials, so
that the same seed gives the same trials with any references. The run's attribute `references` stores it; its record has
a number below 0 and its name in `reference`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mnas.architecture import Architecture, architecture_from_dict
from mnas.evaluate.evaluation import Evaluation, Metric, accuracy_noise, effective_images
from mnas.formats import WEIGHTS_SUFFIX
from mnas.objective import Objective
from mnas.space.candidates import input_sizes_of
from mnas.space.named import space_from_dict
from mnas.study.check import RunError
from mnas.study.limits import Skip, StoredLimits, over_limits, over_size
from mnas.study.read import Snapshot, objectives_of
from mnas.study.record import TrialRecord, attributes_of, fields_of_stored
from mnas.study.records import best_for, front_of
from mnas.study.run import StudyWriter
from mnas.zoo.architectures import reference_arch

NOT_TRAINED = "not trained, as the search trains no network from random weights"
"""Error of a reference that is only measured."""
STORED = ("arch", "fingerprint", "input_size", "seed", "params", "macs", "size_bytes", "latency", "latencies", "error")
"""Fields of a reference's record that are stored as those of a trial are."""


def metric_of(attributes: Mapping[str, Any]) -> Metric:
    """Return the score that a run maximises; accuracy in runs from before there was a choice."""
    metric: Metric = attributes.get("config", {}).get("metric", "accuracy")
    return metric


def val_counts(attributes: Mapping[str, Any]) -> list[int]:
    """Return the validation images of each class; empty in runs that did not store them."""
    return list(attributes.get("val_counts", []))


def stored_reference(reference: TrialRecord, measure_s: float) -> dict[str, Any]:
    """Return the stored form of a reference whose measurement took `measure_s` seconds."""
    evaluation = reference.evaluation
    return {
        "name": reference.reference,
        **{name: value for name, value in attributes_of(vars(reference)) if name in STORED},
        "accuracy": evaluation.accuracy if evaluation else None,
        "evaluation": evaluation.to_dict() if evaluation else None,
        "measure_s": measure_s,
        "train_s": evaluation.train_s if evaluation else None,
    }


def references_of(run: StudyWriter | Snapshot) -> list[TrialRecord]:
    """Return the run's references: complete, skipped (over a limit: reported, but not recommended) or failed.

    References without an architecture, which a few runs of earlier versions have, are left out.
    """
    stored = enumerate(run.attributes.get("references", []))
    references = (_reference(run.attributes, reference, -1 - index) for index, reference in stored)
    return [reference for reference in references if reference is not None]


def _reference(attributes: Mapping[str, Any], stored: Mapping[str, Any], number: int) -> TrialRecord | None:
    arch = _arch_of(attributes, stored)
    if arch is None:
        return None
    config = attributes.get("config", {})
    size = input_sizes_of(config)[-1] if "input_size" in config else 0
    older = {"size_bytes": 0, "seed": 0, "input_size": size}  # earlier versions did not store these
    fields = {**older, **fields_of_stored({name: stored[name] for name in STORED if name in stored})}
    fields |= {"arch": arch, "fingerprint": arch.fingerprint, "evaluation": _evaluation_of(attributes, stored)}
    reference = TrialRecord(number=number, state="running", reference=stored["name"], **fields)
    if reference.evaluation is None:
        return replace(reference, state="failed", error=reference.error or "for a reason that was not stored")
    assert reference.latency is not None
    accuracy = reference.evaluation.score(metric_of(attributes))
    objectives = objectives_of(attributes)
    rewards = tuple(objective.reward(accuracy, reference.latency.latency_ms) for objective in objectives)
    skipped = _skip_of(attributes, reference)
    return replace(
        reference,
        state="skipped" if skipped else "complete",
        accuracy=accuracy,
        reward=rewards[0] if rewards else None,
        rewards=rewards if len(rewards) > 1 else (),
        skipped=skipped,
    )


def _skip_of(attributes: Mapping[str, Any], reference: TrialRecord) -> Skip | None:
    """Return the limit of the run that a reference exceeds."""
    limits, objectives = StoredLimits(attributes.get("config", {})), objectives_of(attributes)
    skipped = over_size(limits, reference.size_bytes)
    if skipped is None and objectives and reference.latency is not None:
        slowest_ms = max(objective.target_latency_ms for objective in objectives)
        skipped = over_limits(limits, slowest_ms, reference.latency, reference.latencies)
    return skipped


def _arch_of(attributes: Mapping[str, Any], stored: Mapping[str, Any]) -> Architecture | None:
    """Return the stored architecture; older runs measured MobileNetV2 on the space's skeleton."""
    if "arch" in stored:
        return architecture_from_dict(stored["arch"])
    if stored["name"] == "mobilenetv2" and "space" in attributes.get("config", {}):
        return reference_arch(space_from_dict(attributes["config"]["space"]).reference_skeleton)
    return None


def _evaluation_of(attributes: Mapping[str, Any], stored: Mapping[str, Any]) -> Evaluation | None:
    if stored.get("evaluation") is not None:
        return Evaluation.from_dict(stored["evaluation"])
    if stored["accuracy"] is None:
        return None
    return Evaluation(
        accuracy=stored["accuracy"],
        accuracies=(stored["accuracy"],),
        val_images=int(attributes.get("provenance", {}).get("data", {}).get("val_images", 0)),
        train_s=stored.get("train_s") or 0.0,
        images_per_s=0.0,
        epochs=0,
    )


def results_of(run: StudyWriter | Snapshot) -> list[TrialRecord]:
    """Return trials and references; the front of the run is `front_of` these."""
    return [*run.trials, *references_of(run)]


def weights_of(run: Path, trial: TrialRecord) -> Path:
    """Return the path of the weights that the search trained; they may have been deleted."""
    return run / "models" / f"{trial.label}{WEIGHTS_SUFFIX}"


def find_result(run: Snapshot, label: str) -> TrialRecord:
    """Return the trial with that number, or the reference with that name.

    Raises:
        RunError: there is no such result; the message lists the results.
    """
    trials = f"trials 0 to {len(run.trials) - 1}" if run.trials else "no trials yet"
    if label.isdecimal():
        if int(label) < len(run.trials):
            return run.trials[int(label)]
        raise RunError(f"{run.path} has {trials}, but got {label}")
    references = {reference.label: reference for reference in references_of(run)}
    if label not in references:
        networks = f"the reference network {', '.join(references)}" if references else "no reference network yet"
        raise RunError(f"{run.path} has {trials} and {networks}, but got {label!r}")
    return references[label]


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The result to take for one target."""

    best: TrialRecord
    """Result to take: a trial, or a reference that is better than every trial."""
    trial: TrialRecord | None
    """Trial with the highest reward on the front of all trials; None where no training finished."""
    noise: float
    """Smallest significant difference from the accuracy of `best`, at 95 % confidence; 0 where it is unknown."""
    alike: tuple[TrialRecord, ...]
    """References other than `best` that are no slower than it, and within `noise` of its accuracy."""

    @property
    def is_reference(self) -> bool:
        """Return whether a reference is better than every trial."""
        return self.best.reference is not None


def recommend(
    trials: Sequence[TrialRecord], references: Sequence[TrialRecord], objective: Objective, val_images: int
) -> Recommendation | None:
    """Return the result to take for one target; None where no training finished.

    It is the trial with the highest reward, unless a reference is better: by its reward, or by its accuracy at no more
    latency. A reference that exceeds a limit of the search, or that a trial dominates, is not better.
    """
    front = front_of(trials)
    trial = best_for(front, objective) if front else None
    compared = [reference for reference in references if reference.state == "complete"]
    on_front = {result.number for result in front_of([*trials, *compared])}
    better = [
        reference
        for reference in compared
        if reference.number in on_front and (trial is None or _is_better(reference, trial, objective))
    ]
    best = best_for(better, objective) if better else trial
    if best is None:
        return None
    noise = accuracy_noise(best.point[0], val_images) if val_images else 0.0
    alike = tuple(
        reference
        for reference in compared
        if reference is not best
        and reference.point[1] <= best.point[1]
        and abs(reference.point[0] - best.point[0]) < noise
    )
    return Recommendation(best=best, trial=trial, noise=noise, alike=alike)


def _is_better(reference: TrialRecord, trial: TrialRecord, objective: Objective) -> bool:
    (accuracy, latency_ms), (trial_accuracy, trial_latency_ms) = reference.point, trial.point
    no_worse = accuracy >= trial_accuracy and latency_ms <= trial_latency_ms
    dominates = no_worse and reference.point != trial.point
    return dominates or objective.reward(*reference.point) > objective.reward(*trial.point)


def table_results(run: StudyWriter | Snapshot, objectives: Sequence[Objective]) -> list[TrialRecord]:
    """Return the results that a search prints and exports to front/, fastest first.

    These are the front of trials and references, and for each target the best trial where a reference dominates it.
    """
    rows = {result.number: result for result in front_of(results_of(run))}
    if front := front_of(run.trials):
        rows |= {best.number: best for best in (best_for(front, objective) for objective in objectives)}
    return sorted(rows.values(), key=lambda result: (result.point[1], -result.point[0], result.number))


def images_behind(run: StudyWriter | Snapshot, val_images: int) -> int:
    """Return the number of images behind the metric's noise: all, or fewer where unequal classes count alike."""
    counts = val_counts(run.attributes)
    metric = metric_of(run.attributes)
    return effective_images(metric, counts) if counts and metric != "accuracy" else val_images
