"""What a search begins with: networks that the user names, and the trials of earlier runs (`--start-from`).

Both are written with the study itself (`mnas.study.Beginning`), as its first trials: those of earlier runs finished, as
they are known; then the named ones, which are measured and trained like any other. They fill the first batches, and
what is drawn goes on with the next number, in the batch that it falls into. So the rule of closed batches holds
unchanged, and with it replay and resume: of a batch that was begun with, the rest is drawn from the batches before it.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.controller.named import given_attrs
from mnas.digests import ChangedFileError
from mnas.formats import WEIGHTS_SUFFIX
from mnas.latency.latency import Calibration, Latency
from mnas.latency.statistics import rescaled
from mnas.names import resolve_arch
from mnas.nn.weights_info import require_unchanged
from mnas.search.candidate import candidate_record
from mnas.search.measure import shared_latency
from mnas.search.problem import Plan, Problem
from mnas.search.progress import Watcher
from mnas.space.factorized import FactorizedSpace
from mnas.space.space import Space
from mnas.study import (
    DERIVED,
    Draft,
    Origin,
    RunError,
    Snapshot,
    StudyWriter,
    TrialRecord,
    count_taken,
    differences,
    front_of,
    read_run,
)
from mnas.study.limits import over_limits, over_size
from mnas.study.record import VERSION
from mnas.zoo.architectures import ZOO
from mnas.zoo.member import nearest_member

SAME = ("space", "input_size", "data_content", "proxy", "device", "latency_threads")
"""Fields of two runs' configurations that must be equal for the trials of one to be worth the same in the other."""
WHY_OTHER_IMAGES = ("data", "seed", "max_images_per_class")
"""Where images differ, these say why: the seed draws which of them are held out."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A named network that the space contains."""

    name: str
    """As the user has written it."""
    arch: Architecture
    note: str
    """What of it is not as published; empty where all is."""


@dataclass(frozen=True, kw_only=True)
class History:
    """An earlier run whose trials are taken over."""

    name: str
    """As the user has written it: its path."""
    run: Snapshot

    @property
    def calibrations(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """device -> the calibration of each of its units."""
        calibrations: Mapping[str, Sequence[Mapping[str, Any]]] = self.run.attributes["calibrations"]
        return calibrations


def read_start(
    names: Sequence[str], space: Space, config: Mapping[str, Any], run_dir: Path
) -> tuple[list[Member], list[History]]:
    """What `names` name, for a run at `run_dir` with this configuration; members first, histories second.

    Raises:
        ValueError: a name that names nothing, a network that the space does not contain, a run that was made for
            another space, other images, another proxy or device, or that has nothing to take; one line that says which.
    """
    config = json.loads(json.dumps(config))  # as those of other runs read
    members: list[Member] = []
    histories: list[History] = []
    if len({os.path.realpath(name) if os.path.exists(name) else name for name in names}) < len(names):
        raise ValueError(f"start from must name each network and run once, but got {','.join(names)}")
    for name in names:
        if os.path.isfile(os.path.join(name, "study.db")):
            histories.append(_history(name, config, run_dir, histories))
        elif _means_a_run(name):
            raise ValueError(f"start from must name networks and runs, but got {name}, where there is no run")
        else:
            members.append(named_member(name, space))
    named: dict[str, str] = {}
    for member in members:
        if member.arch.fingerprint in named:
            both = f"{named[member.arch.fingerprint]} and {member.name}"
            raise ValueError(f"start from must name different networks, but {both} are the same one here")
        named[member.arch.fingerprint] = member.name
    return members, histories


def _means_a_run(name: str) -> bool:
    """Whether it can only have been meant as the folder of one: a path, not of a file, not of a trial."""
    path = Path(name)
    return len(path.parts) > 1 and path.parts[0].split("@")[0] not in ZOO and not path.suffix and "#" not in name


def named_member(name: str, space: Space) -> Member:
    """The network of `name` as `space` has it: a published one on its skeleton, any other as it is.

    Raises:
        ValueError: there is none, or the space does not contain it.
    """
    try:
        if name in ZOO and isinstance(space, FactorizedSpace) and not os.path.exists(name):
            return _published(name, space)
        arch = resolve_arch(name)
        return Member(name=name, arch=space.decode(space.encode(arch)), note="")
    except ValueError as error:
        raise ValueError(f"{name} cannot be had in this space: {error}") from None


def _published(name: str, space: FactorizedSpace) -> Member:
    """On the space's skeleton; what is not as published is said."""
    arch = ZOO[name].arch
    if not isinstance(arch, Arch):
        raise ValueError(f"space {space.name} has networks of blocks, and it is one of cells")
    try:
        published = arch.with_output_stride(space.skeleton.output_stride)
        return Member(name=name, arch=space.decode(space.encode(published)), note="")
    except ValueError as error:
        nearest = nearest_member(space, arch)
        return Member(name=name, arch=nearest, note=f"the nearest member of the space, as it is none itself ({error})")


def _history(name: str, config: Mapping[str, Any], run_dir: Path, others: Sequence[History]) -> History:
    if os.path.realpath(name) == os.path.realpath(run_dir):
        raise RunError(f"a search cannot start from itself, but got start from {name}; choose another --run")
    run = read_run(Path(name))
    if run.state.status == "running":
        raise RunError(f"{name} is still being searched; wait for it, or stop it, to start from it")
    if differing := _differences(run.attributes["config"], config):
        raise RunError(
            f"a search starts from runs of the same space, images, proxy and device, but {name} has others: {differing}"
        )
    history = History(name=name, run=run)
    evaluations = [trial.evaluation for trial in run.trials if trial.state == "complete"]
    if config.get("metric", "accuracy") != "accuracy" and any(
        evaluation is None or evaluation.balanced_accuracy is None for evaluation in evaluations
    ):
        raise RunError(f"{name} has no balanced accuracies, as it was made by an earlier version; search without it")
    if not evaluations:
        raise RunError(f"{name} has no trained candidate to start from")
    for other in others[:1]:
        _require_one_device(other, history)
    return history


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The fields that keep `theirs` from being history of `ours`, on one line; empty where nothing does."""
    fields = list(SAME)
    if theirs.get(DERIVED) != ours[DERIVED]:
        fields += WHY_OTHER_IMAGES
    if (theirs.get("latency"), ours["latency"]) == ("predicted", "measured"):
        fields.append("latency")
    then, now = ({name: config.get(name) for name in fields} for config in (theirs, ours))
    return differences(then, now)


def _require_one_device(first: History, other: History) -> None:
    """Raise RunError unless both runs measured on the same device, in the same way."""
    for device, (unit, *_) in first.calibrations.items():
        then = [
            {n: c[n] for n in ("device", "runtime", "batch", "reference")}
            for c in (unit, other.calibrations[device][0])
        ]
        if differing := differences(*then):
            raise RunError(f"{first.name} and {other.name} were measured on different devices: {differing}")


def given_trials(
    members: Sequence[Member], histories: Sequence[History], problem: Problem, plan: Plan
) -> Iterator[Draft]:
    """The first trials of a study: those of `histories` in order of run and number, then `members`.

    Taken are complete trials, in this run's terms: their latencies on the scale of the first history's calibration
    (which is this run's too), their reward by its objective, and skipped where they are over a limit of this run; and
    of skipped ones those that this run would skip as well. A training that several runs have is taken once.
    """
    numbers: dict[tuple[str, int], int] = {}  # a training, by network and seed -> its number here
    number = 0
    for history in histories:
        for trial in history.run.trials:
            training = _training_of(trial)
            taken = None if training in numbers else _taken(history, trial, number, histories[0], problem, plan)
            if taken is None:
                continue
            if trial.same_as is not None:
                twin = history.run.trials[trial.same_as]
                taken = replace(taken, same_as=numbers.get(_training_of(twin)))
            numbers[training] = number
            yield _given(taken, problem, plan)
            number += 1
    for place, member in enumerate(members, number):
        choices = problem.space.params(problem.space.encode(member.arch))
        yield _given(candidate_record(member.arch, place, choices, problem, plan, member.name), problem, plan)


def _given(record: TrialRecord, problem: Problem, plan: Plan) -> Draft:
    return Draft(record=record, distributions=problem.space.distributions, notes=given_attrs(plan.controller))


def _training_of(trial: TrialRecord) -> tuple[str, int]:
    return trial.fingerprint, trial.seed


def _taken(
    history: History, trial: TrialRecord, number: int, first: History, problem: Problem, plan: Plan
) -> TrialRecord | None:
    """A trial of `history` as one of this run; None where it is of no use to it."""
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
    taken = replace(
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
        return taken
    assert trial.evaluation is not None
    assert latency is not None
    accuracy = trial.evaluation.score(problem.metric)
    rewards = tuple(objective.reward(accuracy, latency.latency_ms) for objective in problem.objectives)
    several = rewards if len(rewards) > 1 else ()
    return replace(taken, state="complete", accuracy=accuracy, reward=rewards[0], rewards=several)


def _rescaled(latency: Latency, before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Latency:
    """On the scale of this run's calibration; of the unit that measured it, where that is known, else the first."""
    then, since = (
        Calibration.from_dict(next((c for c in units if c["unit"] == latency.unit), units[0]))
        for units in (before, now)
    )
    return rescaled(latency, then, since)


def take_weights(run: StudyWriter, watcher: Watcher) -> None:
    """Copy the weights of what is on the front and was taken over; once, and as far as they are there."""
    if "weights_taken" in run.attributes or not count_taken(run.trials):
        return
    missing = []
    for trial in front_of(run.trials):
        if trial.origin is None:
            continue
        source = Path(trial.origin.run) / "models" / f"{trial.origin.trial}{WEIGHTS_SUFFIX}"
        copy = run.weights_path(trial.number)
        half = copy.with_name(f".{copy.name}.tmp")  # removed when a run is opened
        try:
            require_unchanged(source, trial.fingerprint)
            shutil.copyfile(source, half)
        except ChangedFileError as error:
            watcher.say(f"the weights of {trial.origin} were not copied: {error}")
        except FileNotFoundError:
            missing.append(str(trial.origin))
        else:
            half.replace(copy)
    if missing:
        watcher.say(f"no weights were kept of {', '.join(missing)}")
    run.set("weights_taken", True)
