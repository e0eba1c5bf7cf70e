"""The directory of a run, and the one process that writes to it; its Optuna study is the only truth.

    runs/NAME/study.db     every trial (SQLite through Optuna; optuna-dashboard opens it)
              config.json  the settings, to read
              log.jsonl    what happened when, to read; nothing is ever parsed out of it
              models/      weights of the trials on the front
              trained/     a folder for every trial that was trained in full (mnas/shortlist)
              front/       the front's models as .tflite + arch.json, written when the search ends
              report.html
              lock         held by the process that searches; dies with it

A trial (study/record.py) is stored at once with all its parameters as RUNNING, gets its latency,
and ends as COMPLETE, PRUNED (skipped: over a limit) or FAIL (with its reason). A process killed anywhere in between
leaves RUNNING trials; the resumed one finishes them under their numbers.

The first trials of a study may have been taken over from earlier runs (`mnas search --start-from`), finished as they
are; each says in its attribute `from` which run's trial it was. They are written with the study itself: it has all of
them from its first moment, or there is no study.
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
    count_taken,
    front_of,
    records_of,
    sampler_attributes,
    with_attributes,
)
from mnas.study.storage import BulkStorage, uninterrupted, use_pragmas

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)

DERIVED = "data_content"
"""A field of the configuration that follows others (data, seed, input size): named only where nothing else differs."""


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a study has from its first moment on."""

    trials: Sequence[Draft] = ()
    """Those taken over from other runs come first."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able, of the whole run."""


class Standing:
    """What a search asks of its trials again and again; follows them one by one, so that no answer looks at all."""

    def __init__(self, trials: Sequence[TrialRecord]) -> None:
        self.taken = count_taken(trials)
        """Number of trials taken over from other runs."""
        self.states: collections.Counter[State] = collections.Counter()
        """State -> number of the others."""
        self.front: list[TrialRecord] = []
        """Pareto front, as `front_of` has it."""
        self.best_reward: float | None = None
        """Highest reward of a complete trial; None before the first."""
        self.first: dict[str, dict[str, int]] = {"fingerprint": {}, "latency": {}, "evaluation": {}}
        """Field -> network, by fingerprint -> number of the first of its trials that has the field."""
        for trial in trials:
            self.follow(None, trial)

    def follow(self, before: TrialRecord | None, now: TrialRecord) -> None:
        """A trial is new (`before` is None), has been given a field, or is finished."""
        for name, numbers in self.first.items():
            if getattr(now, name) is not None:
                numbers.setdefault(now.fingerprint, now.number)
        if before is not None and before.state == now.state:
            return
        if now.number >= self.taken:
            self.states[now.state] += 1
            if before is not None:
                self.states[before.state] -= 1
        if now.state == "complete":
            self.front = front_of(sorted([*self.front, now], key=lambda trial: trial.number))
            if now.reward is not None:
                self.best_reward = max(now.reward, -math.inf if self.best_reward is None else self.best_reward)


class StudyWriter:
    """A run opened by the one process that may write to it; use `open_run`.

    `trials` and `frozen` mirror the storage, but for the microseconds of the times: this process is its only writer.
    """

    def __init__(self, path: Path, storage: BaseStorage, study: StoredStudy | None = None) -> None:
        """`storage` holds a study of this run and nothing else (`begin_study`); `study` is what was read of it."""
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
        """By number."""
        self.frozen: list[FrozenTrial] = study.frozen
        """The same trials as Optuna's samplers see them."""
        self.standing = Standing(self.trials)

    def set(self, name: str, value: Any) -> None:
        """Store a JSON-able attribute of the whole run."""
        with uninterrupted():
            self._storage.set_study_user_attr(self._study_id, name, value)
        self.attributes[name] = value

    def add(self, draft: Draft) -> TrialRecord:
        """Store a trial, parameters and all, in one transaction; its number is the count of those before it."""
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
        """Store fields of trial `number`, which must not be finished; each by itself, in their order."""
        self._store(number, dict(attributes_of(changes)), changes)

    def finish(self, number: int, state: State, *, accuracy: float | None = None, **changes: Any) -> None:
        """Store fields of trial `number`, then its end; `accuracy` where it is complete."""
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
        """Where the trained weights of trial `number` are kept."""
        return self.path / "models" / f"{number}{WEIGHTS_SUFFIX}"


@contextlib.contextmanager
def open_run(
    path: Path, config: Mapping[str, Any], begin: Callable[[], Beginning] = Beginning
) -> Iterator[StudyWriter]:
    """Open the run at `path` for writing, or begin it; `config` is what must not change between two starts.

    `begin` is called for a run that is not there yet, and says what its study has from the first moment. What it raises
    is raised, and nothing of the run stays.

    Raises:
        RunError: another process is using it, it was made with another configuration or another version, or it is no
        run. OSError: the directory cannot be made or written.
    """
    new = not path.exists()
    _require_run_folder(path)
    path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path / "lock")
    try:
        lock.acquire(timeout=1)  # a second look, as who reads a run takes it for a moment
    except filelock.Timeout:
        raise RunError(f"{path} is in use by another process; wait for it, stop it, or choose another --run") from None
    try:
        _remove_temporaries(path)
        config = json.loads(json.dumps(config))  # as it reads back
        if not (path / "study.db").exists():
            try:
                _create_database(path, config, begin())
            except BaseException:
                if new:
                    _remove_empty(path)
                raise
        storage = open_database(path, path)
        try:
            run = StudyWriter(
                path, storage, read_study(path, storage, path)
            )  # what is damaged is refused before any write
            _check_same(path, run.attributes, config)
            (path / "models").mkdir(exist_ok=True)
            write_atomic(path / "config.json", json.dumps(config, indent=1))
            yield run
        finally:
            storage.engine.dispose()
    finally:
        lock.release()


def _require_run_folder(path: Path) -> None:
    """Raise RunError where something else than a run is at `path`."""
    if path.exists() and not path.is_dir():
        raise RunError(f"a run must be a directory, but {path} is a file; choose another --run")
    require_files(path)
    if path.is_dir() and not (path / "study.db").exists():
        ours = {"lock", "config.json", "log.jsonl"}
        if foreign := sorted(p.name for p in path.iterdir() if p.name not in ours and not p.name.startswith(".")):
            raise RunError(f"{path} is no run (it holds {foreign[0]}, but no study.db); choose another --run")


def _create_database(path: Path, config: Mapping[str, Any], beginning: Beginning) -> None:
    """A kill in the middle of this must not leave half a study: made under another name, then renamed."""
    with tempfile.TemporaryDirectory(dir=path, prefix=".new-") as folder:
        file = Path(folder) / "study.db"
        storage = BulkStorage(f"sqlite:///{file}")
        use_pragmas(storage, "synchronous=OFF")  # a whole file is written to the disk once, at its end
        begin_study(storage, config, beginning)
        storage.engine.dispose()
        with file.open("rb") as written:
            os.fsync(written.fileno())
        os.rename(file, path / "study.db")


def begin_study(storage: BaseStorage, config: Mapping[str, Any], beginning: Beginning) -> None:
    """Make in `storage` the study of a run that has begun and no more."""
    study_id = storage.create_new_study(DIRECTIONS, STUDY_NAME)
    for name, value in {"format": FORMAT, "config": dict(config), **beginning.attributes}.items():
        storage.set_study_user_attr(study_id, name, value)
    for draft in beginning.trials:
        storage.create_new_trial(study_id, template_trial=draft.frozen())


def _remove_empty(path: Path) -> None:
    """Take a folder away in which nothing was begun."""
    with contextlib.suppress(OSError):  # there is something in it, or nobody may
        (path / "lock").unlink()
        path.rmdir()


def _check_same(path: Path, attributes: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    if differing := differences(attributes["config"], config):
        raise RunError(
            f"{path} was made with another configuration ({differing}); use the same, or choose another --run"
        )


def differences(stored: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The fields in which two configurations differ, each with both values, on one line; empty where none does."""
    stored, config = _flat(stored), _flat(config)
    differing = [name for name in {**stored, **config} if stored.get(name) != config.get(name)]
    if len(differing) > 1 and DERIVED in differing:
        differing.remove(DERIVED)
    return "; ".join(f"{n}: {_short(stored.get(n))} there, {_short(config.get(n))} now" for n in differing)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields under dotted names, so that a difference is named exactly."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _remove_temporaries(path: Path) -> None:
    """What a killed process left half written, here and in models/."""
    for leftover in (*path.glob(".*.tmp"), *path.glob("models/.*.tmp"), *path.glob(".new-*")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
