"""From the options of `mnas search` to an opened run and the problem that it is searched for."""

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial
from rich.console import Console

from mnas.cli.conclusion import label_counts
from mnas.cli.search_devices import open_fleet, predicting, read_predictors, start_fleet
from mnas.data.dataset import Dataset
from mnas.evaluate.baseline import baseline_line
from mnas.search.problem import Problem
from mnas.search.reach import find_reach
from mnas.search.start import History, Member, given_trials, read_start
from mnas.space.space import Space
from mnas.study import Beginning, StudyWriter, count_taken, open_run
from mnas.workers import Evaluate
from mnas.zoo.architectures import reference_arch

if TYPE_CHECKING:
    from mnas.cli.search import SearchCommand


@contextmanager
def open_search(
    command: "SearchCommand", space: Space, dataset: Dataset, evaluate: Evaluate, console: Console
) -> Iterator[tuple[StudyWriter, Problem]]:
    """The run that `command` names, begun or gone on with, its devices started and calibrated.

    Raises:
        ValueError: an option that does not fit the others, the devices or the images; a run that is another one.
    """
    starter = _Starter(command, space, dataset, evaluate, console)
    with starter.fleet, open_run(command.run_dir, command.identity(space, dataset), starter.begin) as run:
        yield run, starter.problem or starter.go_on(run)


class _Starter:
    """Starts the devices once, either way."""

    def __init__(
        self, command: "SearchCommand", space: Space, dataset: Dataset, evaluate: Evaluate, console: Console
    ) -> None:
        self._command, self._space, self._dataset = command, space, dataset
        self._evaluate, self._console = evaluate, console
        self._reference = reference_arch(space.reference_skeleton)
        self._reference.check_input_size(dataset.input_size)
        self.fleet = open_fleet(command, self._reference, dataset, console)
        self._predictors = read_predictors(command, space, dataset)
        self.problem: Problem | None = None

    def begin(self) -> Beginning:
        """What a new run has from its first moment."""
        command = self._command
        names = command.start_from.split(",") if command.start_from else []
        members, histories = read_start(
            names, self._space, command.identity(self._space, self._dataset), command.run_dir
        )
        if len(members) > command.trials:
            raise ValueError(
                f"trials must be enough for the {len(members)} networks of start from, but got {command.trials}"
            )
        describe(self._console, command, self._space, self._dataset)
        known = {"calibrations": histories[0].calibrations} if histories else {}
        problem, attributes = self._start(known, histories[0].name if histories else str(command.run_dir))
        attributes |= self._check_targets(problem)
        trials = list(given_trials(members, histories, problem, command.plan()))
        self._say_what_is_given(members, histories, trials)
        return Beginning(trials=trials, attributes=attributes)

    def go_on(self, run: StudyWriter) -> Problem:
        """With a run as it is."""
        describe(self._console, self._command, self._space, self._dataset)
        problem, attributes = self._start(run.attributes, str(run.path))
        for name, value in attributes.items():
            if name not in run.attributes:  # it was made by a version that kept them later, and stopped before
                run.set(name, value)
        if "provenance" in run.attributes:
            say_changes(self._console, run.attributes["provenance"]["versions"])
        return problem

    def _start(self, known: Mapping[str, Any], origin: str) -> tuple[Problem, dict[str, Any]]:
        attributes = start_fleet(self._command, self.fleet, self._predictors, known, origin)
        sharing = self._command.sharing(self.fleet.reference_ms)
        objective, *others = self._command.objectives(sharing)
        self.problem = Problem(
            space=self._space,
            input_size=self._dataset.input_size,
            num_classes=len(self._dataset.classes),
            measure=self.fleet.measure,
            size_bytes=self.fleet.size_bytes,
            evaluate=self._evaluate,
            references={"mobilenetv2": self._reference},
            objective=objective,
            metric=self._command.metric,
            others=tuple(others),
            sharing=sharing,
            predict=predicting(self._predictors, attributes["calibrations"]),
        )
        targets = [f"{name} {ms:.3g} ms" for name, ms in sharing.targets_ms.items()]
        targets += [f"{other.target_latency_ms:.3g} ms" for other in others]
        self._say(f"target {', '.join(targets).removeprefix('host ')}, reward {objective.form}")
        return self.problem, attributes

    def _check_targets(self, problem: Problem) -> dict[str, Any]:
        """What a run keeps of it. Raises ValueError where a target is given that the space does not reach."""
        if self._command.target_latency_ms == "auto":
            return {}
        with self._console.status("measuring the space's smallest and largest member"):
            reach = find_reach(problem)
        for device, target_ms in problem.sharing.targets_ms.items():
            reach.require(device, self._command.targets_ms or [target_ms])
            on = f" on {device}" if len(problem.sharing.targets_ms) > 1 else ""
            self._say(f"the space's members take {reach.text(device)}{on}")
        return {"reach": reach.to_dict()}

    def _say_what_is_given(
        self, members: Sequence[Member], histories: Sequence[History], trials: Sequence[FrozenTrial]
    ) -> None:
        lines = []
        for history in histories:
            numbers = [n for n, t in enumerate(trials) if t.user_attrs.get("from", {}).get("run") == history.name]
            place = f", here trials {numbers[0]} to {numbers[-1]}" if numbers else ""
            lines.append(f"begins with {len(numbers)} of {len(history.run.trials)} trials of {history.name}{place}")
            say_changes(self._console, history.run.attributes["provenance"]["versions"])
        if histories:
            lines.append(f"milliseconds are those of {histories[0].name}: its calibration is this run's")
        for number, member in enumerate(members, count_taken(trials)):
            lines.append(f"trial {number} is {member.name}" + (f": {member.note}" if member.note else ""))
        for line in lines:
            self._say(line)

    def _say(self, line: str) -> None:
        self._console.print(line)


def versions() -> dict[str, str]:
    """Of what accuracies and latencies may depend on."""
    packages = ("ai-edge-litert", "optuna", "timm", "torch", "torchvision")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


def say_changes(console: Console, before: Mapping[str, str]) -> None:
    """Say which versions differ from those of `before`."""
    changed = [f"{k} {before[k]} then, {v} now" for k, v in versions().items() if before.get(k, v) != v]
    if changed:
        console.print(f"accuracies may not repeat: {', '.join(changed)}")


def describe(console: Console, command: "SearchCommand", space: Space, dataset: Dataset) -> None:
    """What is searched, and how."""
    s = space.skeleton
    lines = [
        f"data {dataset.name}: {len(dataset.classes)} classes, {len(dataset.train.labels)} training and "
        f"{len(dataset.val.labels)} validation images of {dataset.input_size} px",
        f"space {space.name}: {space.size:.2e} choices, skeleton {s.text}; output stride {s.output_stride}"
        + (", the largest that leaves a map of 3 x 3 or more" if command.output_stride == "auto" else ""),
        f"controller {command.controller}, {command.proxy.epochs} epoch(s) a candidate, latency {command.latency} on "
        f"{command.device}, at most {command.latency_budget_s:g} s each; run {command.run_dir}",
    ]
    lines.insert(1, baseline_line(command.metric, label_counts(dataset), dataset.classes))
    if (workers := command.plan().workers) > command.batch_size:
        lines.append(
            f"{workers} workers, but {command.batch_size} candidates are drawn at a time: "
            f"--candidates-per-update {workers} would keep all of them busy"
        )
    for line in lines:
        console.print(line)
