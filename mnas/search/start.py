"""The trials that a search starts from: networks that the user names, and the trials of earlier runs (`--start-from`).

Both are written with the study itself (`mnas.study.Beginning`), as its first trials. Trials of earlier runs come first
and are finished; named networks follow, and are measured and trained like any other. They fill the first batches. The
first drawn trial takes the next number, in the batch of that number. The rule of closed batches therefore holds
unchanged, and with it replay and resume: the rest of a partly filled batch is drawn from the batches before it.
"""

import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.candidate import Candidate
from mnas.controller.named import initial_attrs
from mnas.digests import ChangedFileError
from mnas.formats import WEIGHTS_SUFFIX
from mnas.latency.latency import Calibration, Latency
from mnas.latency.statistics import rescaled
from mnas.names import resolve_arch
from mnas.nn.cost import cost
from mnas.nn.weights_info import require_unchanged
from mnas.search.candidate import candidate_record
from mnas.search.measure import shared_latency
from mnas.search.problem import Plan, Problem
from mnas.search.progress import Watcher
from mnas.space.factorized import FactorizedSpace
from mnas.space.per_layer import PerLayerSpace
from mnas.space.space import Space
from mnas.study import (
    DERIVED,
    Draft,
    Origin,
    RunError,
    Snapshot,
    StudyWriter,
    TrialRecord,
    count_imported,
    differences,
    front_of,
    read_run,
)
from mnas.study.limits import over_limits, over_size
from mnas.study.record import VERSION
from mnas.zoo.architectures import ZOO
from mnas.zoo.member import member_like, nearest_member

SAME = ("space", "parents", "input_size", "data_content", "proxy", "device", "latency_threads")
"""Fields that must be equal in the configurations of two runs for one to import the other's trials."""
WHY_OTHER_IMAGES = ("data", "seed", "max_images_per_class")
"""Fields that explain why images differ; the seed determines which of them are held out."""


STARTING_SHARE = 4
"""A search that cuts networks begins with plain cuts, at most the trials divided by this number."""
KNOWN_TO_BE_GOOD = ("mobilenetv2", "mnasnet-a1")
"""Published networks whose nearest members a search evaluates first (`--start-from auto`)."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A named network of the space."""

    name: str
    """Name as the user typed it."""
    arch: Architecture
    note: str
    """Difference from the published network, in words; empty where there is no difference."""


@dataclass(frozen=True, kw_only=True)
class History:
    """An earlier run whose trials are imported."""

    name: str
    """Path of the run as the user typed it."""
    run: Snapshot

    @property
    def calibrations(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Return device -> the calibration of each of its units."""
        calibrations: Mapping[str, Sequence[Mapping[str, Any]]] = self.run.attributes["calibrations"]
        return calibrations


def read_start(
    names: Sequence[str], space: Space | None, config: Mapping[str, Any], run_dir: Path
) -> tuple[list[Member], list[History]]:
    """Return the members and the histories that `names` stand for, in a run at `run_dir` with this configuration.

    Raises:
        ValueError: a name is unknown, the space does not contain a network, or a run has nothing to import or was made
            for another space, other images, another proxy task or another device. The message is one line.
    """
    config = json.loads(json.dumps(config))  # with the same types as those read from other runs
    members: list[Member] = []
    histories: list[History] = []
    if len({os.path.realpath(name) if os.path.exists(name) else name for name in names}) < len(names):
        raise ValueError(f"--start-from must name each network and run once, but got {','.join(names)}")
    for name in names:
        if os.path.isfile(os.path.join(name, "study.db")):
            histories.append(_history(name, config, run_dir, histories))
        elif _means_a_run(name):
            raise ValueError(f"--start-from must name networks and runs, but got {name}, which does not contain a run")
        else:
            if space is None:
                raise ValueError(f"--start-from {name} needs a search from scratch: add --from-scratch, or drop it")
            members.append(named_member(name, space))
    named: dict[str, str] = {}
    for member in members:
        if member.arch.fingerprint in named:
            both = f"{named[member.arch.fingerprint]} and {member.name}"
            raise ValueError(f"--start-from must name different networks, but {both} are the same in this space")
        named[member.arch.fingerprint] = member.name
    return members, histories


def _means_a_run(name: str) -> bool:
    """Return whether a name can only mean the folder of a run: it is a path, but not of a file or a trial."""
    path = Path(name)
    return len(path.parts) > 1 and path.parts[0].split("@")[0] not in ZOO and not path.suffix and "#" not in name


def named_member(name: str, space: Space, option: str = "--start-from") -> Member:
    """Return the named network as a member of `space`: a published one on the space's skeleton, any other unchanged.

    Args:
        option: option that names the network, for errors.

    Raises:
        ValueError: the name is unknown, or the space does not contain the network.
    """
    try:
        arch = resolve_arch(name)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None
    try:
        if name in ZOO and isinstance(space, FactorizedSpace) and not os.path.exists(name):
            return _published(name, space)
        return Member(name=name, arch=space.decode(space.encode(arch)), note="")
    except ValueError as error:
        raise ValueError(
            f"{name} is not in this search space: {error}; use another --space, or drop it from {option}"
        ) from None


def _published(name: str, space: FactorizedSpace) -> Member:
    """Return a published network on the space's skeleton, with a note on the differences."""
    arch = ZOO[name].arch
    if not isinstance(arch, Arch):
        raise ValueError(f"it is a network of cells, but space {space.name} contains networks of blocks")
    try:
        published = arch.with_output_stride(space.skeleton.output_stride)
        return Member(name=name, arch=space.decode(space.encode(published)), note="")
    except ValueError as error:
        nearest = nearest_member(space, arch)
        note = f"the nearest network of the space, which does not contain the published one ({error})"
        return Member(name=name, arch=nearest, note=note)


def published_members(space: Space) -> list[Member]:
    """Return the different networks of `space` that are nearest to `KNOWN_TO_BE_GOOD`; none in a space of cells."""
    members: dict[str, Member] = {}
    if isinstance(space, FactorizedSpace | PerLayerSpace):
        for name in KNOWN_TO_BE_GOOD:
            published = ZOO[name].arch
            assert isinstance(published, Arch)
            arch = member_like(space, published)
            note = "the nearest network of the space (--start-from auto)"
            members.setdefault(arch.fingerprint, Member(name=name, arch=arch, note=note))
    return list(members.values())


def _history(name: str, config: Mapping[str, Any], run_dir: Path, others: Sequence[History]) -> History:
    if os.path.realpath(name) == os.path.realpath(run_dir):
        raise RunError(f"--start-from must name other runs, but {name} is the run of this search; choose another --run")
    run = read_run(Path(name))
    if run.state.status == "running":
        raise RunError(f"--start-from must name runs that have stopped, but {name} is running; wait for it, or stop it")
    if differing := _differences(run.attributes["config"], config):
        raise RunError(
            f"--start-from must name runs with the same space, images, proxy task and device, but {name} differs: "
            f"{differing}"
        )
    history = History(name=name, run=run)
    evaluations = [trial.evaluation for trial in run.trials if trial.state == "complete"]
    if config.get("metric", "accuracy") != "accuracy" and any(
        evaluation is None or evaluation.balanced_accuracy is None for evaluation in evaluations
    ):
        raise RunError(
            f"{name} has no balanced accuracies, because an earlier version of mnas wrote it; drop it from --start-from"
        )
    if not evaluations:
        raise RunError(f"--start-from must name runs with trained candidates, but {name} has none")
    for other in others[:1]:
        _require_one_device(other, history)
    return history


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Return, on one line, the fields that prevent importing `theirs` into `ours`; empty where none differs."""
    fields = list(SAME)
    if theirs.get(DERIVED) != ours[DERIVED]:
        fields += WHY_OTHER_IMAGES
    if (theirs.get("latency"), ours["latency"]) == ("predicted", "measured"):
        fields.append("latency")
    then, now = ({name: config.get(name) for name in fields} for config in (theirs, ours))
    return differences(then, now, "in that run", "now")


def _require_one_device(first: History, other: History) -> None:
    """Raise RunError unless both runs measured on the same device and in the same way."""
    for device, (unit, *_) in first.calibrations.items():
        one, two = (
            {n: c[n] for n in ("device", "runtime", "batch", "reference")}
            for c in (unit, other.calibrations[device][0])
        )
        if differing := differences(one, two, f"in {first.name}", f"in {other.name}"):
            raise RunError(f"--start-from must name runs measured on the same device, but got {differing}")


def initial_trials(
    members: Sequence[Member], histories: Sequence[History], problem: Problem, plan: Plan
) -> Iterator[Draft]:
    """Yield the first trials of a study: those of `histories` in order of run and number, then `members`.

    Complete trials are imported in this run's terms: latencies on the scale of the first history's calibration (also
    this run's), rewards by this run's objective, and skipped where they exceed a limit of this run. Skipped trials are
    imported where this run would skip them as well. A training that several runs share is imported once.
    """
    numbers: dict[tuple[str, int], int] = {}  # (candidate, seed) of a training -> its number in this run
    number = 0
    for history in histories:
        for trial in history.run.trials:
            training = _training_of(trial)
            imported = None if training in numbers else _imported(history, trial, number, histories[0], problem, plan)
            if imported is None:
                continue
            if trial.same_as is not None:
                twin = history.run.trials[trial.same_as]
                imported = replace(imported, same_as=numbers.get(_training_of(twin)))
            numbers[training] = number
            yield _given(imported, problem, plan)
            number += 1
    for place, member in enumerate(members, number):
        candidate = Candidate(arch=member.arch, input_size=problem.space.input_sizes[-1])
        choices = problem.space.params(problem.space.encode(candidate))
        yield _given(candidate_record(candidate, place, choices, problem, plan, member.name), problem, plan)
    for place, candidate in enumerate(_of_parents(problem, plan.trials - len(members)), number + len(members)):
        choices = problem.space.params(problem.space.encode(candidate))
        name = _name(candidate, problem)
        yield _given(candidate_record(candidate, place, choices, problem, plan, name), problem, plan)


def _name(candidate: Candidate, problem: Problem) -> str:
    """Return `efficientnet-lite0 at 64 px`, with `cut to 31 % of its MACs` where it is a part of the parent."""
    [whole] = [parent.arch for parent in problem.space.parents if parent.name == candidate.parent]
    macs, all_macs = (cost(arch, candidate.input_size, problem.num_classes).macs for arch in (candidate.arch, whole))
    size = f"{candidate.parent} at {candidate.input_size} px"
    return size if candidate.arch == whole else f"{size}, cut to {macs / all_macs:.0%} of its MACs"


def _of_parents(problem: Problem, most: int) -> list[Candidate]:
    """Return the first candidates with known weights, the nearest to a target first; MACs stand for latencies.

    These are all parents at all sizes where they are taken whole; else the plain cuts that come nearest to each target,
    as a quarter of the trials at most.
    """
    if not problem.space.parents:
        return []

    def macs(candidate: Candidate) -> int:
        return cost(candidate.arch, candidate.input_size, problem.num_classes).macs

    [reference] = problem.references.values()
    device = next(iter(problem.sharing.targets_ms))
    wanted = [
        macs(reference) * objective.target_latency_ms / problem.reference_ms[device] for objective in problem.objectives
    ]
    away = {
        candidate: [abs(math.log(macs(candidate) / each)) for each in wanted]
        for candidate in problem.space.starting_cuts()
    }
    if not problem.space.cuts:
        return sorted(away, key=lambda candidate: min(away[candidate]))[: max(0, most)]
    ranked = [sorted(away, key=lambda candidate: away[candidate][place]) for place in range(len(wanted))]
    nearest = dict.fromkeys(itertools.chain.from_iterable(zip(*ranked, strict=True)))  # targets take turns
    return list(nearest)[: max(0, min(most, max(len(wanted), most // STARTING_SHARE)))]


def _given(record: TrialRecord, problem: Problem, plan: Plan) -> Draft:
    return Draft(record=record, distributions=problem.space.distributions, notes=initial_attrs(plan.controller))


def _training_of(trial: TrialRecord) -> tuple[str, int]:
    return trial.identity, trial.seed


def _imported(
    history: History, trial: TrialRecord, number: int, first: History, problem: Problem, plan: Plan
) -> TrialRecord | None:
    """Return a trial of `history` as a trial of this run; None where it cannot be imported."""
    if trial.state not in ("complete", "skipped"):
        return None
    skipped = over_size(plan, trial.size_bytes)
    latency, latencies = None, {}
    if trial.latencies:
        latencies = {
            device: _rescaled(each, history.calibrations[device], first.calibrations[device])
            for device, each in trial.latencies.items()
        }
        latency = shared_latency(problem.sharing, latencies)
        skipped = skipped or over_limits(plan, problem.slowest_target_ms, latency, latencies)
    if trial.state == "skipped" and not skipped:
        return None
    imported = replace(
        trial,
        number=number,
        state="skipped",
        accuracy=None,
        latency=latency,
        latencies=latencies,
        reward=None,
        rewards=(),
        same_as=None,
        origin=Origin(run=history.name, trial=trial.number),
        name=None,
        skipped=skipped,
        started=None,
        finished=None,
        version=VERSION,
    )
    if skipped:
        return imported
    assert trial.evaluation is not None
    assert latency is not None
    accuracy = trial.evaluation.score(problem.metric)
    rewards = tuple(objective.reward(accuracy, latency.latency_ms) for objective in problem.objectives)
    several = rewards if len(rewards) > 1 else ()
    return replace(imported, state="complete", accuracy=accuracy, reward=rewards[0], rewards=several)


def _rescaled(latency: Latency, before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Latency:
    """Return the latency on the scale of this run's calibration of its unit, or else of the first unit."""
    then, since = (
        Calibration.from_dict(next((c for c in units if c["unit"] == latency.unit), units[0]))
        for units in (before, now)
    )
    return rescaled(latency, then, since)


def copy_weights(run: StudyWriter, watcher: Watcher) -> None:
    """Copy the available weights of imported trials on the front, once per run."""
    if "weights_taken" in run.attributes or not count_imported(run.trials):
        return
    missing = []
    for trial in front_of(run.trials):
        if trial.origin is None:
            continue
        source = Path(trial.origin.run) / "models" / f"{trial.origin.trial}{WEIGHTS_SUFFIX}"
        copy = run.weights_path(trial.number)
        half = copy.with_name(f".{copy.name}.tmp")  # opening a run removes leftovers of this name
        try:
            require_unchanged(source, trial.fingerprint)
            shutil.copyfile(source, half)
        except ChangedFileError as error:
            watcher.say(f"the weights of {trial.origin} are not copied: {error}")
        except FileNotFoundError:
            missing.append(str(trial.origin))
        else:
            half.replace(copy)
    if missing:
        watcher.say(f"no stored weights for the imported trials {', '.join(missing)}")
    run.set("weights_taken", True)
