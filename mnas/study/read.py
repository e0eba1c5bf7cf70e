"""Read a run from its database without locking it, also while another process writes."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from mnas.objective import Objective
from mnas.study.check import RunError, check_attributes, damaged, one_line
from mnas.study.database import STUDY_NAME, broken_table, open_database, require_files, unreadable
from mnas.study.record import TrialRecord, records_of
from mnas.study.records import front_of

FORMAT = 3
"""Version of the run's format; runs of other versions are rejected."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The state of a run, in one word, and its reason."""

    status: str
    """One of `running`, `interrupted`, `stopped` (can be resumed) and `finished`."""
    reason: str


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at the time of reading."""

    path: Path
    attributes: dict[str, Any]
    trials: list[TrialRecord]
    """Trials, by number."""

    @property
    def front(self) -> list[TrialRecord]:
        """Return the complete trials on the Pareto front, fastest first."""
        return front_of(self.trials)

    @property
    def state(self) -> RunState:
        """Return the state of the run; it is `running` only while a process holds the lock."""
        state = self.attributes.get("state")
        if _is_locked(self.path):
            return RunState(status="running", reason="")
        if state is None and not self.trials:
            return RunState(status="interrupted", reason="before the first trial")
        if state is None or state["status"] == "running":
            return RunState(status="interrupted", reason="run the same command again to resume")
        return RunState(**state)


def read_run(path: Path) -> Snapshot:
    """Read the run at `path` without locking it.

    Raises:
        RunError: the folder contains no run, a run of another version, or one with a damaged record.
    """
    if not (path / "study.db").is_file():
        raise RunError(f"{path} is not a run: it contains no study.db (`mnas runs` lists the runs in runs/)")
    require_files(path)
    with contextlib.ExitStack() as stack:
        folder = path
        if not (os.access(path, os.W_OK) and os.access(path / "study.db", os.W_OK)):  # else SQLite cannot read
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for file in path.glob("study.db*"):
                shutil.copy(file, folder)
                (folder / file.name).chmod(0o600)
        storage = open_database(folder, path)
        stack.callback(storage.engine.dispose)
        study = read_study(path, storage, folder)
        return Snapshot(path, study.attributes, study.trials)


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """A whole study, with each record checked."""

    attributes: dict[str, Any]
    trials: list[TrialRecord]
    """Trials, by number."""
    frozen: list[FrozenTrial]
    """The same trials as Optuna's samplers see them."""


def read_study(path: Path, storage: BaseStorage, folder: Path) -> StoredStudy:
    """Return the study of the run at `path`, whose study.db is open from `folder`.

    Raises:
        RunError: the study has another version, or a damaged record, which the message names.
    """
    try:
        study_id = storage.get_study_id_from_name(STUDY_NAME)
        attributes = dict(storage.get_study_user_attrs(study_id))
    except Exception as error:
        raise damaged(path, f"an attribute of the run cannot be read ({one_line(error)})") from None
    if attributes.get("format") != FORMAT:
        raise RunError(
            f"{path} was written by another version of mnas (format {one_line(attributes.get('format'))}; this version "
            f"writes {FORMAT}); use that version, or choose another --run"
        )
    try:
        directions = [direction.name for direction in storage.get_study_directions(study_id)]
        frozen = storage.get_all_trials(study_id)
    except Exception as error:
        raise damaged(path, f"{unreadable(storage, folder)}({one_line(error)})") from None
    if directions != ["MAXIMIZE", "MINIMIZE"]:
        raise damaged(path, f"its directions must be MAXIMIZE and MINIMIZE, but are {', '.join(directions) or 'none'}")
    check_attributes(path, attributes)
    trials = records_of(path, attributes, frozen)
    if fault := broken_table(folder):
        raise damaged(path, fault)
    return StoredStudy(attributes=attributes, trials=trials, frozen=frozen)


def objectives_of(attributes: Mapping[str, Any]) -> list[Objective]:
    """Return the objective of each target of a run with these attributes; empty before the run has one."""
    first = [attributes["objective"]] if "objective" in attributes else []
    return [Objective(**values) for values in (*first, *attributes.get("other_objectives", []))]


def trained_path(run: Path, label: int | str) -> Path:
    """Return the folder of a result's full training, by the number of a trial or the name of a reference."""
    return run / "trained" / str(label)


def is_trained(run: Path, label: int | str) -> bool:
    """Return whether the full training is finished; its result is written last."""
    return (trained_path(run, label) / "result.json").is_file()


def _is_locked(path: Path) -> bool:
    try:
        with filelock.FileLock(path / "lock", blocking=False):
            return False
    except filelock.Timeout:
        return True
    except OSError:  # a read-only run, which no process can write
        return False
