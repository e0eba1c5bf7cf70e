"""The content of the report as plain values from a run's study; independent of HTML."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnas.architecture import Architecture
from mnas.cell_arch import CellArch
from mnas.evaluate.baseline import NAMES
from mnas.evaluate.evaluation import Fidelity, Metric, accuracy_noise
from mnas.latency.latency import SOURCES, Latency, Source, joint_source
from mnas.objective import Objective
from mnas.ops import OPS, op_text
from mnas.shortlist.table import Row, finished_rows
from mnas.space.candidates import input_sizes_of
from mnas.study import RunState, Snapshot, State, TrialRecord, count_imported, front_of, objectives_of
from mnas.study.limits import Limit
from mnas.study.results import (
    Recommendation,
    images_behind,
    metric_of,
    recommend,
    references_of,
    val_counts,
)

Z95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A trained and measured network: a complete trial or reference."""

    number: int
    """Number of the trial; below 0 for a reference network."""
    reference: str
    """Name of a reference network, which is a result but not a trial; empty for a trial."""
    accuracy: float
    accuracy_low: float
    """Lower end of the 95 % Wilson interval for the number of validation images; the accuracy where that is unknown."""
    accuracy_high: float
    latency: Latency
    """Latency that counts: the only device's, or the worst device's record with values from all devices."""
    latencies: Mapping[str, Latency]
    """Device -> latency."""
    reward: float
    params: int
    macs: int
    size_bytes: int
    """Size of the LiteRT file, in bytes."""
    val_images: int
    """Number of validation images; 0 where unknown."""
    accuracies: tuple[float, ...]
    """Accuracy of each repeat."""
    same_as: int | None
    """Number of the trial of the same network whose result this trial shares."""
    origin: str
    """`runs/OLD#17` for an imported trial, the name of a start candidate, else empty."""
    arch: Architecture
    input_size: int
    """Side of its input in pixels; 0 in a run that does not say."""
    fidelity: Fidelity
    """How the network behind the accuracy was made."""
    epochs: int
    """Epochs of its training."""
    right: tuple[int, ...]
    """Correct predictions for each class, summed over repeats; empty where a run lacks them."""

    @property
    def label(self) -> str:
        """The part after # in runs/NAME#17."""
        return self.reference or str(self.number)

    @property
    def title(self) -> str:
        """The text `trial 17`, or a reference's name."""
        return self.reference or f"trial {self.number}"

    @property
    def latency_ms(self) -> float:
        """Latency that counts, in milliseconds."""
        return self.latency.latency_ms

    @property
    def source(self) -> Source:
        """Source of the latency that counts: that of the least certain device."""
        return joint_source([latency.source for latency in self.latencies.values()])

    @property
    def peak_memory_bytes(self) -> int | None:
        """Highest peak memory on any device, in bytes; None where no device reports it."""
        return max((x.peak_memory_bytes for x in self.latencies.values() if x.peak_memory_bytes), default=None)


@dataclass(frozen=True, kw_only=True)
class Update:
    """State of the controller after a batch."""

    trials: int
    """Number of trials finished up to this update."""
    hypervolume: float
    diagnostics: dict[str, Any]

    @property
    def block_entropies(self) -> dict[str, float]:
        """Entropies of `block3.kernel`, ... summed over each block, in nats; empty for a controller without them."""
        sums: dict[str, float] = {}
        for name, entropy in self.diagnostics.get("entropy_per_decision", {}).items():
            block = name.split(".")[0]
            sums[block] = sums.get(block, 0.0) + entropy
        return sums

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """Objective -> diagnostics of a surrogate's model; empty before or without a model."""
        return dict(zip(("accuracy", "latency"), self.diagnostics.get("objectives", []), strict=False))


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A run as the report shows it."""

    name: str
    state: RunState
    attributes: dict[str, Any]
    """Attributes of the study."""
    trials: Sequence[TrialRecord]
    candidates: tuple[Result, ...]
    """The trials, by number."""
    references: tuple[TrialRecord, ...]
    """Reference networks, including those that failed or exceed a limit."""
    compared: tuple[Result, ...]
    """References that count as results like the trials: trained, and within all limits."""
    front: tuple[Result, ...]
    """Pareto front of trials and references, fastest first."""
    recommended: tuple[Recommendation, ...]
    """Recommendation for each target; empty before a candidate is trained."""
    updates: tuple[Update, ...]
    trained: tuple[Row, ...]
    """Fully trained models, fastest first."""

    @property
    def target_ms(self) -> float | None:
        """The first T, in milliseconds; None before the run has one."""
        target = self.attributes.get("objective", {}).get("target_latency_ms")
        return None if target is None else float(target)

    @property
    def objectives(self) -> list[Objective]:
        """The objective of each target, the first target's first; empty before the run has one."""
        return objectives_of(self.attributes)

    @property
    def goals_ms(self) -> list[float]:
        """T of each objective, in milliseconds; several where several targets share all trials."""
        return [objective.target_latency_ms for objective in self.objectives]

    @property
    def calibrations(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Device -> the calibration of each of its units; empty before the first calibration."""
        calibrations: Mapping[str, Sequence[Mapping[str, Any]]] = self.attributes.get("calibrations", {})
        return calibrations

    @property
    def targets_ms(self) -> Mapping[str, float]:
        """Device -> T in milliseconds, in the user's order; empty before the run has them."""
        targets_ms: Mapping[str, float] = self.attributes.get("sharing", {}).get("targets_ms", {})
        return targets_ms

    @property
    def input_size(self) -> int | None:
        """Side of the images in pixels; None before a device is calibrated."""
        return next((int(units[0]["input_size"]) for units in self.calibrations.values()), None)

    @property
    def input_sizes(self) -> tuple[int, ...]:
        """Input sizes that the search chooses from, and those of its trials, in pixels, ascending."""
        config = self.attributes.get("config", {})
        offered = input_sizes_of(config) if "input_size" in config else ()
        return tuple(sorted({*offered, *(trial.input_size for trial in self.trials)}))

    @property
    def has_sizes(self) -> bool:
        """Whether the search chooses among several input sizes."""
        return len(self.input_sizes) > 1

    @property
    def has_parents(self) -> bool:
        """Whether the search chose among networks with known weights."""
        return any(trial.parent for trial in self.trials)

    @property
    def results(self) -> tuple[Result, ...]:
        """Trials and references."""
        return (*self.candidates, *self.compared)

    def result(self, number: int) -> Result:
        """Return the trial or reference with that number."""
        return next(c for c in self.results if c.number == number)

    @property
    def best(self) -> Result | None:
        """The recommendation for the first target; without one, the highest reward on the front."""
        if self.recommended:
            return self.result(self.recommended[0].best.number)
        return max(self.front, key=lambda c: c.reward, default=None)

    @property
    def chosen(self) -> list[Result]:
        """The recommended results for all targets, without duplicates."""
        return [self.result(n) for n in dict.fromkeys(each.best.number for each in self.recommended)]

    @property
    def metric(self) -> Metric:
        """Score that the search maximises; the report calls it a candidate's accuracy."""
        return metric_of(self.attributes)

    @property
    def metric_name(self) -> str:
        """The text `accuracy`, or `balanced accuracy`."""
        return NAMES[self.metric]

    @property
    def val_counts(self) -> list[int]:
        """Number of validation images of each class; empty in runs that did not store it."""
        return val_counts(self.attributes)

    @property
    def classes(self) -> list[str]:
        """Names of the classes; empty before the run has them."""
        return list(self.attributes.get("provenance", {}).get("data", {}).get("classes", []))

    @property
    def imported(self) -> int:
        """Number of trials that were imported from other runs; they are the first ones."""
        return count_imported(self.trials)

    @property
    def imported_from(self) -> dict[str, int]:
        """Run, as the user named it -> number of trials imported from it."""
        return dict(Counter(t.origin.run for t in self.trials if t.origin))

    @property
    def drawn(self) -> list[TrialRecord]:
        """Trials that the controller drew."""
        return [t for t in self.trials if not origin_of(t)]

    @property
    def drawn_ms(self) -> dict[Source, list[float]]:
        """Source -> the latency that counts of every drawn trial with one, including skipped and failed trials."""
        latencies: dict[Source, list[float]] = {}
        for trial in self.drawn:
            if trial.latency_ms is not None:
                latencies.setdefault(trial.source, []).append(trial.latency_ms)
        return {source: latencies[source] for source in SOURCES if source in latencies}

    def count(self, state: State) -> int:
        """Return the number of this search's trials in `state`."""
        return sum(t.state == state for t in self.trials[self.imported :])

    @property
    def errors(self) -> dict[str, list[int]]:
        """Error -> numbers of the trials that failed with it."""
        groups: dict[str, list[int]] = {}
        for trial in self.trials:
            if trial.state == "failed":
                groups.setdefault(trial.error or "", []).append(trial.number)
        return groups

    @property
    def skips(self) -> dict[Limit, list[int]]:
        """Limit -> numbers of this search's trials that were skipped for it."""
        return skipped_by(self.trials[self.imported :])


def facts_of(snapshot: Snapshot) -> Facts:
    """Return the content of the report on `snapshot`."""
    references = references_of(snapshot)
    images = _images_of(snapshot)
    done = [t for t in (*snapshot.trials, *references) if t.state == "complete"]
    candidates = {t.number: _candidate(t, images) for t in done}
    advised = [
        recommend(snapshot.trials, references, objective, images or 0)
        for objective in objectives_of(snapshot.attributes)
    ]
    updates = sorted((int(k.split(":")[1]), v) for k, v in snapshot.attributes.items() if k.startswith("update:"))
    ended = snapshot.attributes.get("state", {}).get("status") in ("finished", "stopped")
    return Facts(
        name=snapshot.path.resolve().name,
        # the search writes its last report while it holds the lock, which would make a snapshot `running`
        state=RunState(**snapshot.attributes["state"]) if ended else snapshot.state,
        attributes=snapshot.attributes,
        trials=snapshot.trials,
        candidates=tuple(c for c in candidates.values() if not c.reference),
        references=tuple(references),
        compared=tuple(c for c in candidates.values() if c.reference),
        front=tuple(candidates[t.number] for t in front_of(done)),
        recommended=tuple(each for each in advised if each is not None),
        updates=tuple(
            Update(trials=u["trials"], hypervolume=u["hypervolume"], diagnostics=u["diagnostics"] or {})
            for _, u in updates
        ),
        trained=tuple(finished_rows(snapshot)),
    )


def _images_of(snapshot: Snapshot) -> int | None:
    """Return the number of images that gives the metric's uncertainty; None where the run does not record it."""
    images = snapshot.attributes.get("provenance", {}).get("data", {}).get("val_images")
    return None if images is None else images_behind(snapshot, int(images))


def _candidate(trial: TrialRecord, images: int | None) -> Result:
    accuracy, _ = trial.point
    assert trial.latency is not None
    assert trial.evaluation is not None
    val_images = trial.evaluation.val_images if images is None else images
    low, high = wilson_interval(accuracy, val_images)
    return Result(
        number=trial.number,
        reference=trial.reference or "",
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        latency=trial.latency,
        latencies=trial.latencies,
        reward=math.nan if trial.reward is None else trial.reward,
        params=trial.params,
        macs=trial.macs,
        size_bytes=trial.size_bytes,
        val_images=val_images,
        accuracies=trial.evaluation.accuracies,
        same_as=trial.same_as,
        origin=origin_of(trial),
        arch=trial.arch,
        input_size=trial.input_size,
        fidelity=trial.evaluation.fidelity,
        epochs=trial.evaluation.epochs,
        right=trial.evaluation.right,
    )


def origin_of(trial: TrialRecord) -> str:
    """Return `runs/OLD#17` for an imported trial, the name of a start candidate, or an empty text."""
    return str(trial.origin or trial.name or "")


def skipped_by(trials: Sequence[TrialRecord]) -> dict[Limit, list[int]]:
    """Return limit -> numbers of the trials skipped for it, the most frequent first."""
    groups: dict[Limit, list[int]] = {}
    for trial in trials:
        if trial.state == "skipped" and trial.skipped:
            groups.setdefault(trial.skipped.limit, []).append(trial.number)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def wilson_interval(accuracy: float, images: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of an accuracy in [0, 1] on `images` images; 0 images: the accuracy twice."""
    if images == 0:
        return accuracy, accuracy
    share = Z95**2 / images
    centre = (accuracy + share / 2) / (1 + share)
    half = Z95 * math.sqrt(accuracy * (1 - accuracy) / images + share / (4 * images)) / (1 + share)
    return max(0.0, min(accuracy, centre - half)), min(1.0, max(accuracy, centre + half))


def indistinguishable(best: Result, front: Sequence[Result]) -> list[Result]:
    """Return faster members of `front` whose accuracy is not significantly different from that of `best` (95 %)."""
    if best.val_images == 0:
        return []
    noise = accuracy_noise(best.accuracy, best.val_images)
    return [c for c in front if c.latency_ms < best.latency_ms and best.accuracy - c.accuracy < noise]


def sampled_shares(trials: Sequence[TrialRecord]) -> dict[str, dict[str, float]]:
    """Return decision -> choice -> its share in [0, 1] of all blocks (or branches of cells); empty without `trials`."""
    counts: dict[str, Counter[str]] = {}
    for trial in trials:
        for name, choice in _decisions_of(trial.arch):
            counts.setdefault(name, Counter())[choice] += 1
    return {
        name: {choice: n / counter.total() for choice, n in sorted(counter.items(), key=_natural)}
        for name, counter in counts.items()
    }


def _decisions_of(arch: Architecture) -> Iterator[tuple[str, str]]:
    """Yield (decision, choice) of every block, or of every branch of both cells."""
    if isinstance(arch, CellArch):
        for kind, cell in (("normal", arch.normal), ("reduction", arch.reduction)):
            for pair in cell.pairs:
                yield from ((f"{kind} cell", op) for op in (pair.op1, pair.op2))
        return
    for block in arch.blocks:
        yield "operation", op_text(block.op, block.expansion)
        yield "kernel", _kernel_text(block.kernel)
        if len(OPS[block.op].start_kernels) > 1:
            yield "start kernel", _kernel_text(block.start_kernel)
        yield "squeeze-and-excitation", f"{block.se_ratio:g}" if block.se_ratio else "none"
        yield "skip", block.skip
        yield "layers", str(block.layers)


def _kernel_text(kernel: int) -> str:
    return f"{kernel}x{kernel}" if kernel else "none"


_EXPANDING = tuple(name for name, row in OPS.items() if row.expands)


def _natural(item: tuple[str, int]) -> tuple[bool, str, float]:
    """Return a sort key that puts `mbconv12` after `mbconv4.5`, and ops without expansion first."""
    match = re.fullmatch(r"([a-z]*)(\d+(?:\.\d+)?)", item[0])
    return item[0].startswith(_EXPANDING), match[1] if match else item[0], float(match[2]) if match else 0.0


def thirds(trials: Sequence[TrialRecord]) -> dict[str, Sequence[TrialRecord]]:
    """Return the trials in three parts by number, each with its name; one part with fewer than three trials."""
    if not trials:
        return {}
    n = len(trials)
    cuts = [0, n] if n < 3 else [0, n // 3, 2 * n // 3, n]
    return {f"{trials[a].number}–{trials[b - 1].number}": trials[a:b] for a, b in itertools.pairwise(cuts)}
