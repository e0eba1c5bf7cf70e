"""Train a run's shortlist in full, in runs/NAME/trained: a folder for each trial, settings.json, table.csv, lock."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from mnas.atomic import write_atomic
from mnas.children import MOST_WORKERS
from mnas.data.batches import Batches, unreadable_line
from mnas.data.mirror import mirrors, to_store
from mnas.folders import user_cache_dir
from mnas.labels import same_names
from mnas.nn.network import Network
from mnas.readers import read_json
from mnas.shortlist.choose import choose
from mnas.shortlist.pool import Job, Say, train_jobs
from mnas.shortlist.table import FILE_NAME, Row, finished_rows, table_csv
from mnas.space.candidates import Parent, candidate_space, input_sizes_of
from mnas.study import RunError, Snapshot, differences, is_trained, needed, read_run, trained_path
from mnas.study.results import results_of
from mnas.train.config import TrainConfig
from mnas.train.distillation import TaughtBatches
from mnas.train.initial import CutSource, WeightsSource, parent_of, tuned_sources
from mnas.train.presets import PRESETS
from mnas.train.watch import SayingWatcher
from mnas.training_data import TrainedOn

SETTINGS_NAME = "settings.json"

OpenBatches = Callable[[int], Batches]
"""Opens the images of an input size; picklable, as every training opens them for itself."""


@dataclass(frozen=True)
class Outcome:
    """The result of all trainings."""

    chosen: tuple[int | str, ...]
    """Numbers of the chosen trials, and names of the chosen references."""
    rows: list[Row]
    """Rows of all trained trials of the run, by this call or an earlier one; fastest first."""
    failed: dict[int | str, str]
    """Chosen trial whose training failed -> reason; the next call tries it again."""

    @property
    def failures(self) -> str:
        """Return sentences about the failures; empty if no training failed."""
        if not self.failed:
            return ""
        titles = {n: f"trial {n}" if isinstance(n, int) else n for n in self.failed}
        reasons = "; ".join(f"{titles[n]}: {reason}" for n, reason in self.failed.items())
        return (
            f"{len(self.failed)} of {len(self.chosen)} trainings failed ({reasons}). Run the same command again to "
            "retry them."
        )


def train_shortlist(
    path: Path, *, top: int, config: TrainConfig, open_batches: OpenBatches, workers: int, say: Say
) -> Outcome:
    """Train the run's `top` best trials in full, `workers` in parallel.

    Skips finished trainings and resumes interrupted ones. Does not change the search. Where the search has parents, the
    recipe is that of trials with their weights; those from random weights get the preset `small`.

    Raises:
        ValueError: the folder contains no run, the run has nothing to train, classes or image size differ from the
            run's, settings differ from those of an earlier call, or another process trains this run.
        KeyboardInterrupt, TrainingStopped: Ctrl-C or SIGTERM has stopped all trainings, resumable.
    """
    if not 1 <= workers <= MOST_WORKERS:
        raise ValueError(f"--workers must be from 1 to {MOST_WORKERS}, but got {workers}")
    run = read_run(path)
    results = {t.number: t for t in results_of(run)}
    picked = [results[number] for number in choose(list(results.values()), top)]
    chosen = [t.number if t.number >= 0 else t.label for t in picked]
    if not chosen:
        raise RunError(f"{path} has no complete trial to train; search longer")
    batches = open_batches(input_sizes_of(needed(run.path, run.attributes, "config"))[-1])
    _check_images(run, batches)
    config = config.for_images(batches.counts["train"])
    folder = path / "trained"
    folder.mkdir(exist_ok=True)
    try:
        held = filelock.FileLock(folder / "lock").acquire(blocking=False)
    except filelock.Timeout:
        raise RunError(f"{folder} is in use by another process; wait for it or stop it") from None
    with held:
        mirrored = to_store(mirrors(config.mirror, batches.may_be_mirrored, batches.classes), batches.may_be_mirrored)
        teacher = batches.identity() if isinstance(batches, TaughtBatches) else {}
        _keep_settings(folder, {"data_content": batches.fingerprint, **config.identity(), **mirrored, **teacher})
        jobs = [
            Job(label, trial.candidate, trained_path(path, label))
            for label, trial in zip(chosen, picked, strict=True)
            if not is_trained(path, label)
        ]
        say(_plan(run, top, chosen, len(jobs)))
        del batches
        largest = input_sizes_of(run.attributes["config"])[-1]
        training = _Training(_sharing(config, workers), open_batches, sources_of(run, jobs), _cuts_of(run), largest)
        failed = train_jobs(jobs, training, workers, say)
        rows = finished_rows(run)
        write_atomic(folder / FILE_NAME, table_csv(rows))
    return Outcome(tuple(chosen), rows, failed)


@dataclass(frozen=True)
class _Training:
    """One training, in its own process."""

    config: TrainConfig
    open_batches: OpenBatches
    sources: Mapping[str, WeightsSource]
    """Parent -> source of its weights."""
    cuts: Mapping[str, WeightsSource]
    """Parent -> its fine-tuned weights in the run, where the search cut networks from it."""
    largest: int
    """Largest input size of the search, which that of the parents is."""

    def __call__(self, job: Job, say: Say) -> None:
        # timm and accelerate take seconds to import, and only a training needs them
        from mnas.train.initial import initial_network, trained_on
        from mnas.train.loop import train

        candidate = job.candidate
        batches = self.open_batches(candidate.input_size)
        earlier: TrainedOn = ()
        config, initial = self.config, None
        if tuned := self.cuts.get(candidate.parent):
            batches, initial = _cut(CutSource(parent=tuned, arch=candidate.arch), batches, self, config)
            earlier = trained_on(tuned.weights, say)
        elif candidate.parent:
            source = self.sources[candidate.parent]
            initial, earlier = initial_network(source, batches, config.seed), trained_on(source.weights, say)
        elif self.sources:
            config = config.on_same_machine(PRESETS["small"])
        skipped = len(batches.skipped)
        trained = train(
            candidate.arch,
            batches,
            config,
            job.folder,
            initial=initial,
            earlier=earlier,
            resume=True,
            watcher=SayingWatcher(say, config.fixed_epochs),
            title=job.title,
        )
        if len(batches.skipped) > skipped:  # the first notices were printed when the images were opened
            say(unreadable_line(batches.skipped))
        test = "" if trained.test_accuracy is None else f", test accuracy {trained.test_accuracy:.2%}"
        if trained.balanced_accuracy is not None and trained.majority_share is not None:
            test += f", balanced {trained.balanced_accuracy:.2%}, majority share {trained.majority_share:.2%}"
        say(f"done: accuracy {trained.accuracy:.2%}{test}; {trained.epochs} epochs in {trained.seconds:.0f} s")


def _cut(source: CutSource, batches: Batches, training: _Training, config: TrainConfig) -> tuple[Batches, Network]:
    """Return the images with the parent as teacher, unless they have one, and the network cut from it."""
    from mnas.evaluate.inherited import cut_network, taught_by

    network, (batches.mean, batches.std) = cut_network(source, batches)
    if not isinstance(batches, TaughtBatches):
        whole = training.open_batches(training.largest)
        batches = taught_by(source.parent, batches, whole, config, user_cache_dir() / "teachers")
    return batches, network


def _check_images(run: Snapshot, batches: Batches) -> None:
    classes = needed(run.path, run.attributes, "provenance", "data", "classes")
    if not same_names(batches.classes, classes):
        raise ValueError(
            f"the images must have the classes of the search ({_listed(classes)}), but got {_listed(batches.classes)}; "
            "use the --data of the search"
        )
    input_size = input_sizes_of(needed(run.path, run.attributes, "config"))[-1]
    if batches.input_size != input_size:
        raise ValueError(f"the input size must be the search's {input_size} pixels, but got {batches.input_size}")


def _cuts_of(run: Snapshot) -> dict[str, WeightsSource]:
    """Return parent -> its fine-tuned weights, of a run that cut networks from them.

    Raises ValueError where the weights are missing.
    """
    if not run.attributes["config"].get("cuts"):
        return {}
    sources = tuned_sources(candidate_space(run.attributes["config"]).parents, run.path)
    for source in sources.values():
        if not Path(source.weights).exists():
            raise RunError(f"the fine-tuned weights {source.weights} are missing; run the search again to restore them")
    return sources


def sources_of(run: Snapshot, jobs: Sequence[Job]) -> dict[str, WeightsSource]:
    """Return parent -> source of its weights, of a run that has parents.

    Raises ValueError where the weights that a job begins with are missing, or are not those of the search.
    """
    parents = [Parent.from_dict(values) for values in run.attributes["config"].get("parents", ())]
    weights = needed(run.path, run.attributes, "parent_weights") if parents else {}
    sources = {}
    for each in parents:
        source = WeightsSource(name=each.name, arch=each.arch, weights=weights[each.name])
        if any(job.candidate.parent == each.name for job in jobs) and parent_of(source).digest != each.digest:
            raise RunError(
                f"the weights of {each.name} in {source.weights} have changed since the search; restore them, or "
                "search again with another --run"
            )
        sources[each.name] = source
    return sources


def _listed(classes: Any) -> str:
    first = ", ".join(list(classes)[:5])
    return f"{len(classes)}: {first}{', ...' if len(classes) > 5 else ''}"


def _keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Store the settings, or check them against the stored ones: all models of a table are trained alike."""
    path = folder / SETTINGS_NAME
    settings = json.loads(json.dumps(settings))  # equal to what the file reads back
    begun = any(entry.is_dir() for entry in folder.iterdir())
    if begun and path.exists() and (differing := differences(_read_settings(path), settings)):
        raise RunError(
            f"all models in {folder} must be trained with the same settings, but these differ ({differing}); use the "
            "same settings, or rename that folder"
        )
    write_atomic(path, json.dumps(settings, indent=1))


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = read_json(path)
        if not isinstance(settings, dict):
            raise ValueError(f"it contains {type(settings).__name__} instead of an object")
    except ValueError as error:
        raise RunError(
            f"the settings {path} are damaged ({error}). Rename {path.parent} to train all models again, or remove "
            "this file if you know that they were trained with the same options."
        ) from None
    return settings


def _plan(run: Snapshot, top: int, chosen: list[int | str], untrained: int) -> str:
    fewer = f" (fewer than --top {top}, because the run has no more)" if len(chosen) < top else ""
    done = f"; {len(chosen) - untrained} of them already trained" if untrained < len(chosen) else ""
    running = "; the search is still running, so the best trials may change" if run.state.status == "running" else ""
    return f"trials to train in full, best reward first: {', '.join(map(str, chosen))}{fewer}{done}{running}"


def _sharing(config: TrainConfig, workers: int) -> TrainConfig:
    """Divide the cores among parallel trainings, as more threads than cores would wait for each other."""
    if config.threads != "auto" or workers == 1:
        return config
    return dataclasses.replace(config, threads=max(1, (os.cpu_count() or 1) // workers))
