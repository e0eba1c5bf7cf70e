"""What of a search is kept, and where: one directory a run, one Optuna study in it, and that study is the only truth.

    runs/NAME/study.db     every trial with all that is known of it (SQLite through Optuna; optuna-dashboard opens it)
              config.json  the settings, to read
              log.jsonl    what happened when, to read; nothing is ever parsed out of it
              models/      weights of the trials on the front
              trained/     a folder for every trial that was trained in full (mnas/shortlist)
              front/       the front's models as .tflite + arch.json, written when the search ends
              report.html
              lock         held by the process that searches; dies with it

A trial's values are [accuracy, latency_ms]. It is stored at once with all its parameters as RUNNING, gets its latency,
and is then told as COMPLETE, PRUNED (skipped: too slow) or FAIL (with its reason). A process killed anywhere in between
leaves RUNNING trials; the resumed one finishes them under their numbers.

The first trials of a study may have been taken over from earlier runs (`mnas search --start-from`), finished as they
are; each says in its attribute `from` which run's trial it was. They are written with the study itself: it has all of
them from its first moment, or there is no study.
"""

import collections
import contextlib
import copy
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
import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mnas.atomic import write_atomic
from mnas.formats import WEIGHTS_SUFFIX
from mnas.study.check import RunError
from mnas.study.database import STUDY_NAME, open_database, require_files
from mnas.study.read import FORMAT, count_taken, front_of, read_study
from mnas.study.storage import BulkStorage, uninterrupted, use_pragmas

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)

DERIVED = "data_content"
"""A field of the configuration that follows others (data, seed, input size): named only where nothing else differs."""


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a study has from its first moment."""

    trials: Sequence[FrozenTrial] = ()
    """Those taken over from other runs come first."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able, of the whole run."""


class Standing:
    """What a search asks of its trials again and again; follows them one by one, so that no answer looks at all."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self.taken = count_taken(trials)
        """How many were taken over from other runs."""
        self.states: collections.Counter[TrialState] = collections.Counter()
        """Of the others."""
        self.front: list[FrozenTrial] = []
        """As `front_of` has it."""
        self.best_reward: float | None = None
        """Of the COMPLETE ones."""
        self.first: dict[str, dict[str, int]] = {"fingerprint": {}, "latency": {}, "evaluation": {}}
        """Attribute -> network, by fingerprint -> number of the first of its trials that has the attribute."""
        for trial in trials:
            self.follow(None, trial)

    def follow(self, before: FrozenTrial | None, now: FrozenTrial) -> None:
        """A trial is new (`before` is None), has been given attributes, or is finished."""
        for name, numbers in self.first.items():
            if name in now.user_attrs:
                numbers.setdefault(now.user_attrs["fingerprint"], now.number)
        if before is not None and before.state == now.state:
            return
        if now.number >= self.taken:
            self.states[now.state] += 1
            if before is not None:
                self.states[before.state] -= 1
        if now.state == TrialState.COMPLETE:
            self.front = front_of(sorted([*self.front, now], key=lambda trial: trial.number))
            if "reward" in now.user_attrs:
                best = self.best_reward
                self.best_reward = max(now.user_attrs["reward"], -math.inf if best is None else best)


class StudyWriter:
    """A run opened by the one process that may write to it; use `open_run`.

    `trials` mirrors the storage, but for the microseconds of `datetime_complete`: this process is its only writer.
    """

    def __init__(
        self, path: Path, storage: BaseStorage, known: tuple[dict[str, Any], list[FrozenTrial]] | None = None
    ) -> None:
        """`storage` holds a study of this run and nothing else (`begin_study`), of which `known` is what was read."""
        self.path = path
        self._storage = storage
        self._study_id = storage.get_study_id_from_name(STUDY_NAME)
        self.attributes: dict[str, Any] = known[0] if known else dict(storage.get_study_user_attrs(self._study_id))
        self.trials: list[FrozenTrial] = known[1] if known else storage.get_all_trials(self._study_id)
        assert [trial.number for trial in self.trials] == list(range(len(self.trials)))
        self.standing = Standing(self.trials)

    def set(self, name: str, value: Any) -> None:
        """Keep a JSON-able attribute of the whole run."""
        with uninterrupted():
            self._storage.set_study_user_attr(self._study_id, name, value)
        self.attributes[name] = value

    def add(self, template: FrozenTrial) -> FrozenTrial:
        """Store a trial, parameters and all, in one transaction; its number is the count of those before it."""
        with uninterrupted():
            trial_id = self._storage.create_new_trial(self._study_id, template_trial=template)
        trial = copy.copy(template)  # reading it back would take longer than writing it
        trial.number, trial._trial_id = len(self.trials), trial_id
        trial.user_attrs, trial.system_attrs = _reread(trial.user_attrs), _reread(trial.system_attrs)
        self.trials.append(trial)
        self.standing.follow(None, trial)
        return trial

    def note(self, number: int, name: str, value: Any) -> None:
        """Keep a JSON-able attribute of trial `number`, which must not be finished."""
        trial = copy.copy(self.trials[number])
        with uninterrupted():
            self._storage.set_trial_user_attr(trial._trial_id, name, value)
        trial.user_attrs = {**trial.user_attrs, name: _reread(value)}
        self._replace(trial)

    def tell(self, number: int, state: TrialState, values: tuple[float, float] | None) -> None:
        """Finish trial `number`; values are (accuracy, latency_ms) where it is COMPLETE."""
        assert (values is not None) == (state == TrialState.COMPLETE)
        trial = copy.copy(self.trials[number])
        with uninterrupted():
            self._storage.set_trial_state_values(trial._trial_id, state, values)
        trial.state, trial.values = state, None if values is None else list(values)
        trial.datetime_complete = datetime.datetime.now()
        self._replace(trial)

    def _replace(self, trial: FrozenTrial) -> None:
        before, self.trials[trial.number] = self.trials[trial.number], trial
        self.standing.follow(before, trial)

    def log(self, event: str, **fields: Any) -> None:
        """Append a line to log.jsonl."""
        now = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps({"time": now, "event": event, **fields}) + "\n")

    def weights_path(self, number: int) -> Path:
        """Where the trained weights of trial `number` are kept."""
        return self.path / "models" / f"{number}{WEIGHTS_SUFFIX}"


def _reread(value: Any) -> Any:
    """As it reads back."""
    return json.loads(json.dumps(value))


def running_trial(
    params: Mapping[str, Any],
    distributions: Mapping[str, optuna.distributions.BaseDistribution],
    user_attrs: Mapping[str, Any],
    system_attrs: Mapping[str, Any],
) -> FrozenTrial:
    """What `StudyWriter.add` stores of a drawn trial; Optuna's `create_trial` without its checks (half a ms)."""
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.RUNNING,
        value=None,
        intermediate_values={},
        datetime_start=datetime.datetime.now(),
        datetime_complete=None,
        params=dict(params),
        distributions=dict(distributions),
        user_attrs=dict(user_attrs),
        system_attrs=dict(system_attrs),
    )


@contextlib.contextmanager
def open_run(
    path: Path, config: Mapping[str, Any], begin: Callable[[], Beginning] = Beginning
) -> Iterator[StudyWriter]:
    """Open the run at `path` for writing, or begin it; `config` is what must not change between two starts.

    `begin` is called for a run that is not there yet, and says what its study has from the first moment. What it raises
    is raised, and nothing is left of the run.

    Raises:
        RunError: another process is using it, it was made with another configuration or another version, or it is no
        run. OSError: the directory cannot be made or written.
    """
    new = not path.exists()
    if path.exists() and not path.is_dir():
        raise RunError(f"a run must be a directory, but {path} is a file; choose another --run")
    require_files(path)
    if path.is_dir() and not (path / "study.db").exists() and any(p.name != "lock" for p in path.iterdir()):
        known = {"lock", "config.json", "log.jsonl"}
        if foreign := sorted(p.name for p in path.iterdir() if p.name not in known and not p.name.startswith(".")):
            raise RunError(f"{path} is no run (it holds {foreign[0]}, but no study.db); choose another --run")
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
    for trial in beginning.trials:
        storage.create_new_trial(study_id, template_trial=trial)


def _remove_empty(path: Path) -> None:
    """Take a folder away in which nothing was begun."""
    with contextlib.suppress(OSError):  # there is something in it, or nobody may
        (path / "lock").unlink()
        path.rmdir()


def _check_same(path: Path, attributes: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    if shown := differences(attributes["config"], config):
        raise RunError(f"{path} was made with another configuration ({shown}); use the same, or choose another --run")


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
