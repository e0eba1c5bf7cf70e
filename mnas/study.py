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
import sqlalchemy
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mnas.architecture import Architecture, architecture_from_dict
from mnas.atomic import write_atomic
from mnas.objective import Objective, pareto_front
from mnas.storage import BulkStorage, uninterrupted, use_pragmas

STUDY_NAME = "mnas"
FORMAT = 3
"""Of the attributes below; a run with another one is refused."""

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)


DERIVED = "data_content"
"""A field of the configuration that follows others (data, seed, input size): named only where nothing else differs."""


FULL_WEIGHTS = "model.safetensors"
"""What a training leaves in its folder."""


class RunError(ValueError):
    """A run directory that cannot be used, and what to do about it."""


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a study has from its first moment."""

    trials: Sequence[FrozenTrial] = ()
    """Those taken over from other runs come first."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able, of the whole run."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """How a run stands, in one word and its reason."""

    status: str
    """`running`, `interrupted`, `stopped` (may go on), `finished`."""
    reason: str


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


class Run:
    """A run opened by the one process that may write to it; use `open_run`.

    `trials` mirrors the storage, but for the microseconds of `datetime_complete`: this process is its only writer.
    """

    def __init__(self, path: Path, storage: BaseStorage) -> None:
        """`storage` holds a study of this run and nothing else (`begin_study`)."""
        self.path = path
        self._storage = storage
        self._study_id = storage.get_study_id_from_name(STUDY_NAME)
        self.trials: list[FrozenTrial] = storage.get_all_trials(self._study_id)
        assert [trial.number for trial in self.trials] == list(range(len(self.trials)))
        self.attributes: dict[str, Any] = dict(storage.get_study_user_attrs(self._study_id))
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
        return self.path / "models" / f"{number}.safetensors"


def _reread(value: Any) -> Any:
    """As it reads back."""
    return json.loads(json.dumps(value))


def running_trial(
    params: Mapping[str, Any],
    distributions: Mapping[str, optuna.distributions.BaseDistribution],
    user_attrs: Mapping[str, Any],
    system_attrs: Mapping[str, Any],
) -> FrozenTrial:
    """What `Run.add` stores of a trial that has been drawn; Optuna's `create_trial` without its checks (half a ms)."""
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
def open_run(path: Path, config: Mapping[str, Any], begin: Callable[[], Beginning] = Beginning) -> Iterator[Run]:
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
        storage = _open_database(path)
        try:
            run = Run(path, storage)
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


def _open_database(path: Path) -> BulkStorage:
    try:
        with (path / "study.db").open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":  # Optuna would make an empty file a new study
                raise RuntimeError("it is no SQLite database")
        storage = BulkStorage(f"sqlite:///{path / 'study.db'}", engine_kwargs={"connect_args": {"timeout": 60}})
        attributes = storage.get_study_user_attrs(storage.get_study_id_from_name(STUDY_NAME))
    except (sqlalchemy.exc.DatabaseError, RuntimeError, KeyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{path / 'study.db'} cannot be read as a study of this version, or is damaged ({reason})"
        ) from None
    if attributes.get("format") != FORMAT:
        raise RunError(
            f"{path} was made by another version of mnas (format {attributes.get('format')}, this one writes "
            f"{FORMAT}); use that version, or choose another --run"
        )
    # the write-ahead log costs no fsync a commit, and a kill at any moment loses nothing that was committed
    use_pragmas(storage, "journal_mode=WAL", "synchronous=NORMAL")
    return storage


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


# Reading, also while another process writes


@dataclass(frozen=True)
class Snapshot:
    """A run as it stands in the database now."""

    path: Path
    attributes: dict[str, Any]
    trials: list[FrozenTrial]

    @property
    def front(self) -> list[FrozenTrial]:
        """The COMPLETE trials on the Pareto front, fastest first."""
        return front_of(self.trials)

    @property
    def state(self) -> RunState:
        """`running` only while a process holds the lock."""
        state = self.attributes.get("state")
        if _is_locked(self.path):
            return RunState(status="running", reason="")
        if state is None:
            return RunState(status="interrupted", reason="before the first trial")
        if state["status"] == "running":
            return RunState(status="interrupted", reason="run the same command again to go on")
        return RunState(**state)


def read_run(path: Path) -> Snapshot:
    """Read the run at `path` without locking it.

    Raises:
        RunError: there is no run, or one of another version.
    """
    if not (path / "study.db").is_file():
        raise RunError(f"{path} is no run: it has no study.db (`mnas runs` lists those under runs/)")
    with contextlib.ExitStack() as stack:
        folder = path
        if not (os.access(path, os.W_OK) and os.access(path / "study.db", os.W_OK)):  # SQLite reads no log without
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for file in path.glob("study.db*"):
                shutil.copy(file, folder)
                (folder / file.name).chmod(0o600)
        storage = _open_database(folder)
        stack.callback(storage.engine.dispose)
        study_id = storage.get_study_id_from_name(STUDY_NAME)
        return Snapshot(path, storage.get_study_user_attrs(study_id), storage.get_all_trials(study_id))


def objectives_of(attributes: Mapping[str, Any]) -> list[Objective]:
    """The reward for each target of a run with these attributes; none before the run has one."""
    told = [attributes["objective"]] if "objective" in attributes else []
    return [Objective(**values) for values in (*told, *attributes.get("other_objectives", []))]


def best_for(trials: Sequence[FrozenTrial], objective: Objective) -> FrozenTrial:
    """Of COMPLETE trials, fastest first, the one with the highest reward; the fastest of equals."""
    return max(trials, key=lambda t: objective.reward(*t.values))


def count_taken(trials: Sequence[FrozenTrial]) -> int:
    """How many of a study's trials were taken over from other runs; these are its first."""
    return next((number for number, t in enumerate(trials) if "from" not in t.user_attrs), len(trials))


def front_of(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The COMPLETE ones of `trials` that none dominates, fastest first."""
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return [complete[i] for i in pareto_front([(t.values[0], t.values[1]) for t in complete])]


def load_trial_arch(path: Path, number: int) -> Architecture:
    """The architecture of trial `number` of the run at `path`. Raises RunError where there is none."""
    trials = read_run(path).trials
    if not 0 <= number < len(trials):
        raise RunError(f"{path} has the trials 0 to {len(trials) - 1}, but got {number}")
    return architecture_from_dict(trials[number].user_attrs["arch"])


def trained_path(run: Path, number: int) -> Path:
    """The folder of the full training of trial `number`."""
    return run / "trained" / str(number)


def is_trained(run: Path, number: int) -> bool:
    """Whether that training is finished: its result is written last."""
    return (trained_path(run, number) / "result.json").is_file()


def _is_locked(path: Path) -> bool:
    try:
        with filelock.FileLock(path / "lock", blocking=False):
            return False
    except filelock.Timeout:
        return True
    except OSError:  # a read-only run: nobody is writing
        return False
