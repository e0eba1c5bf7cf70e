"""The directory of a run, and the one process that writes to it; its Optuna study is the only source of truth.

    runs/NAME/study.db     every trial (SQLite through Optuna; optuna-dashboard opens it)
              config.json  the settings, for people
              log.jsonl    events with times, for people; no code parses it
              models/      weights of the trials on the front
              trained/     a folder for every trial that was trained in full (mnas/shortlist)
              front/       the front's models as .tflite + arch.json, written when the search ends
              report.html
              lock         held by the process that searches; dies with it

A trial (study/record.py) is stored with all its parameters as RUNNING, gets its latency, and ends as COMPLETE, PRUNED
(skipped: over a limit) or FAIL (with its reason). A killed process leaves RUNNING trials; the process that
resumes finishes them under their numbers.

The first trials of a study may be imported from earlier runs (`mnas search --start-from`), already finished; the
attribute `from` of each names the run and the trial. They are written together with the study, which therefore has
either all of them or does not exist.
"""

import collections
import contextlib
import copy
import dataclasses
import datetime
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from mnas.atomic import write_atomic
from mnas.formats import WEIGHTS_SUFFIX
from mnas.study.check import RunError
from mnas.study.database import STUDY_NAME, open_database, require_files
from mnas.study.read import FORMAT, StoredStudy, read_study
from mnas.study.record import (
    OPTUNA_STATES,
    Draft,
    State,
    TrialRecord,
    attributes_of,
    records_of,
    sampler_attributes,
    with_attributes,
)
from mnas.study.records import count_imported, front_of
from mnas.study.storage import BulkStorage, uninterrupted, use_pragmas

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)

DERIVED = "data_content"
"""Fields of the configuration that follow from others (data, seed, input size); named only where no other field
differs."""


_SHARED = {"identity": "identity", "latency": "graph", "features": "identity", "evaluation": "identity"}
"""Field that equal trials share -> the field by which they are equal."""


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """The initial content of a study."""

    trials: Sequence[Draft] = ()
    """Trials, those imported from other runs first."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able attributes of the whole run."""


class Standing:
    """Running statistics of the trials; each change updates them, so that no query visits all trials."""

    def __init__(self, trials: Sequence[TrialRecord]) -> None:
        self.imported = count_imported(trials)
        """Number of trials imported from other runs."""
        self.states: collections.Counter[State] = collections.Counter()
        """State -> number of the other trials."""
        self.front: list[TrialRecord] = []
        """Pareto front, as `front_of` gives it."""
        self.best_reward: float | None = None
        """Highest reward of a complete trial; None before the first one."""
        self.first: dict[str, dict[str, int]] = {name: {} for name in _SHARED}
        """Field -> identity or graph of a trial -> number of the first one that has the field."""
        for trial in trials:
            self.follow(None, trial)

    def follow(self, before: TrialRecord | None, now: TrialRecord) -> None:
        """Update the statistics with a trial that is new (`before` is None), has a new field, or is finished."""
        for name, numbers in self.first.items():
            if getattr(now, name) is not None:
                numbers.setdefault(getattr(now, _SHARED[name]), now.number)
        if before is not None and before.state == now.state:
            return
        if now.number >= self.imported:
            self.states[now.state] += 1
            if before is not None:
                self.states[before.state] -= 1
        if now.state == "complete":
            self.front = front_of(sorted([*self.front, now], key=lambda trial: trial.number))
            if now.reward is not None:
                self.best_reward = max(now.reward, -math.inf if self.best_reward is None else self.best_reward)


class StudyWriter:
    """A run opened by the one process that may write to it; use `open_run`.

    `trials` and `frozen` mirror the storage, except for the microseconds of the times, as no other process writes.
    """

    def __init__(self, path: Path, storage: BaseStorage, study: StoredStudy | None = None) -> None:
        """Wrap `storage`, which contains only the study of this run (`begin_study`); `study` is its content."""
        self.path = path
        self._storage = storage
        self._study_id = storage.get_study_id_from_name(STUDY_NAME)
        if study is None:
            attributes, frozen = (
                dict(storage.get_study_user_attrs(self._study_id)),
                storage.get_all_trials(self._study_id),
            )
            study = StoredStudy(attributes=attributes, trials=records_of(path, attributes, frozen), frozen=frozen)
        self.attributes: dict[str, Any] = study.attributes
        self.trials: list[TrialRecord] = study.trials
        """Trials, by number."""
        self.frozen: list[FrozenTrial] = study.frozen
        """The same trials as Optuna's samplers see them."""
        self.standing = Standing(self.trials)

    def set(self, name: str, value: Any) -> None:
        """Store a JSON-able attribute of the whole run."""
        with uninterrupted():
            self._storage.set_study_user_attr(self._study_id, name, value)
        self.attributes[name] = value

    def add(self, draft: Draft) -> TrialRecord:
        """Store a trial and its parameters in one transaction; its number is the count of earlier trials."""
        trial = draft.frozen()
        with uninterrupted():
            trial._trial_id = self._storage.create_new_trial(self._study_id, template_trial=trial)
        trial.number = len(self.trials)  # reading it back would take longer than writing it
        trial.system_attrs = json.loads(json.dumps(trial.system_attrs))
        record = dataclasses.replace(
            draft.record, number=trial.number, started=trial.datetime_start, finished=trial.datetime_complete
        )
        self.frozen.append(trial)
        self.trials.append(record)
        self.standing.follow(None, record)
        return record

    def note(self, number: int, **changes: Any) -> None:
        """Store fields of trial `number`, which must not be finished, one by one in their order."""
        self._store(number, dict(attributes_of(changes)), changes)

    def finish(self, number: int, state: State, *, accuracy: float | None = None, **changes: Any) -> None:
        """Store fields of trial `number`, then its end; `accuracy` is for a complete trial."""
        assert (accuracy is not None) == (state == "complete")
        record = self.trials[number]
        more = sampler_attributes(record) if state == "skipped" else {}
        self._store(number, {**dict(attributes_of(changes)), **more}, changes)
        values = None
        if accuracy is not None:
            assert record.latency is not None
            values = accuracy, record.latency.latency_ms
        trial = copy.copy(self.frozen[number])
        with uninterrupted():
            self._storage.set_trial_state_values(trial._trial_id, OPTUNA_STATES[state], values)
        trial.state, trial.values = OPTUNA_STATES[state], None if values is None else list(values)
        trial.datetime_complete = datetime.datetime.now()
        self._replace(trial, {"state": state, "accuracy": accuracy, "finished": trial.datetime_complete})

    def _store(self, number: int, attributes: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        trial = self.frozen[number]
        with uninterrupted():
            for name, value in attributes.items():
                self._storage.set_trial_user_attr(trial._trial_id, name, value)
        self._replace(with_attributes(trial, attributes), changes)

    def _replace(self, trial: FrozenTrial, changes: Mapping[str, Any]) -> None:
        before = self.trials[trial.number]
        now = dataclasses.replace(before, **changes)
        self.frozen[trial.number], self.trials[trial.number] = trial, now
        self.standing.follow(before, now)

    def log(self, event: str, **fields: Any) -> None:
        """Append a line to log.jsonl."""
        now = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps({"time": now, "event": event, **fields}) + "\n")

    def weights_path(self, number: int) -> Path:
        """Return the path of the trained weights of trial `number`."""
        return self.path / "models" / f"{number}{WEIGHTS_SUFFIX}"


@contextlib.contextmanager
def open_run(
    path: Path, config: Mapping[str, Any], begin: Callable[[], Beginning] = Beginning
) -> Iterator[StudyWriter]:
    """Open the run at `path` for writing, or begin it; `config` must be equal at every start of the run.

    `begin` is called for a new run, and returns the initial content of its study. If it raises, the exception
    propagates and no part of the run remains.

    Raises:
        RunError: another process is using the run, it has another configuration or version, or the folder has no run.
        OSError: the directory cannot be created or written.
    """
    new = not path.exists()
    _require_run_folder(path)
    path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path / "lock")
    try:
        lock.acquire(timeout=1)  # a reader of the run may hold the lock for a moment
    except filelock.Timeout:
        raise RunError(f"{path} is in use by another process; wait for it, stop it, or choose another --run") from None
    try:
        _remove_temporaries(path)
        config = json.loads(json.dumps(config))  # equal to what the file will read back
        if not (path / "study.db").exists():
            try:
                _create_database(path, config, begin())
            except BaseException:
                if new:
                    _remove_empty(path)
                raise
        storage = open_database(path, path)
        try:
            run = StudyWriter(path, storage, read_study(path, storage, path))  # reject a damaged run before any write
            _check_same(path, run.attributes, config)
            (path / "models").mkdir(exist_ok=True)
            write_atomic(path / "config.json", json.dumps(config, indent=1))
            yield run
        finally:
            storage.engine.dispose()
    finally:
        lock.release()


def _require_run_folder(path: Path) -> None:
    """Raise RunError where `path` contains something other than a run."""
    if path.exists() and not path.is_dir():
        raise RunError(f"--run must be a folder, but {path} is a file; choose another --run")
    require_files(path)
    if path.is_dir() and not (path / "study.db").exists():
        ours = {"lock", "config.json", "log.jsonl"}
        if foreign := sorted(p.name for p in path.iterdir() if p.name not in ours and not p.name.startswith(".")):
            raise RunError(f"{path} is not a run (it contains {foreign[0]}, but no study.db); choose another --run")


def _create_database(path: Path, config: Mapping[str, Any], beginning: Beginning) -> None:
    """Create the database under another name, then rename it, so that a kill leaves no half study."""
    with tempfile.TemporaryDirectory(dir=path, prefix=".new-") as folder:
        file = Path(folder) / "study.db"
        storage = BulkStorage(f"sqlite:///{file}")
        use_pragmas(storage, "synchronous=OFF")  # the file is synced to disk once, when complete
        begin_study(storage, config, beginning)
        storage.engine.dispose()
        with file.open("rb") as written:
            os.fsync(written.fileno())
        os.rename(file, path / "study.db")


def begin_study(storage: BaseStorage, config: Mapping[str, Any], beginning: Beginning) -> None:
    """Create in `storage` the study of a new run, with its initial content."""
    study_id = storage.create_new_study(DIRECTIONS, STUDY_NAME)
    for name, value in {"format": FORMAT, "config": dict(config), **beginning.attributes}.items():
        storage.set_study_user_attr(study_id, name, value)
    for draft in beginning.trials:
        storage.create_new_trial(study_id, template_trial=draft.frozen())


def _remove_empty(path: Path) -> None:
    """Remove a folder in which no run was begun, if it is empty."""
    with contextlib.suppress(OSError):  # it has other content, or the process lacks permission
        (path / "lock").unlink()
        path.rmdir()


def _check_same(path: Path, attributes: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    if differing := differences(attributes["config"], config):
        raise RunError(f"{path} has another configuration ({differing}); use the same options, or choose another --run")


def differences(stored: Mapping[str, Any], config: Mapping[str, Any], there: str = "before", here: str = "now") -> str:
    """Return the fields in which two configurations differ, with both values, on one line; empty where none differs.

    Args:
        stored: the first configuration.
        config: the second configuration.
        there: words after a value of `stored`.
        here: words after a value of `config`.
    """
    stored, config = _flat(stored), _flat(config)
    differing = [name for name in {**stored, **config} if stored.get(name) != config.get(name)]
    if len(differing) > 1 and DERIVED in differing:
        differing.remove(DERIVED)
    if "space.name" in differing:  # the fields of two different spaces would fill pages
        differing = [name for name in differing if name == "space.name" or not name.startswith("space.")]
    return "; ".join(f"{n}: {_short(stored.get(n))} {there}, {_short(config.get(n))} {here}" for n in differing)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested fields under dotted names, so that a message can name a difference exactly."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _short(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(each, Mapping) and "digest" in each for each in value):
        value = [f"{each.get('name')} {each['digest'][:6]}" for each in value]  # parents, and which weights they have
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _remove_temporaries(path: Path) -> None:
    """Remove the temporary files of a killed process, in this folder and in models/."""
    for leftover in (*path.glob(".*.tmp"), *path.glob("models/.*.tmp"), *path.glob(".new-*")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
