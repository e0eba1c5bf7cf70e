"""Open the file study.db through Optuna, and find the rows that cannot be read."""

import contextlib
import os
import sqlite3
from pathlib import Path

import optuna
import sqlalchemy
from optuna.storages import BaseStorage

from mnas.study.check import RunError, one_line
from mnas.study.storage import BulkStorage, use_pragmas

STUDY_NAME = "mnas"

_BESIDE = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps beside a database."""


def require_files(path: Path) -> None:
    """Raise RunError where a part of the database at `path` is no regular file: SQLite would block on a pipe."""
    for part in ("", *_BESIDE):
        file = path / f"study.db{part}"
        if os.path.lexists(file) and not file.is_file():
            raise RunError(f"{file} must be a regular file, but is not; remove it, or choose another --run")


def open_database(folder: Path, path: Path) -> BulkStorage:
    """Open the study.db in `folder`, which is the run's folder at `path` or a copy of it. Raises RunError."""
    file = path / "study.db"
    try:
        with (folder / "study.db").open("rb") as begin:
            if begin.read(16) != b"SQLite format 3\0":  # Optuna would write a new study into an empty file
                raise _unreadable_file(file, "not an SQLite database")
        storage = BulkStorage(f"sqlite:///{folder / 'study.db'}", engine_kwargs={"connect_args": {"timeout": 60}})
        storage.get_study_id_from_name(STUDY_NAME)
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError, KeyError, optuna.exceptions.OptunaError) as error:
        reason = one_line(error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error)
        raise _unreadable_file(file, reason) from None
    except OSError:
        raise
    except Exception as error:  # Optuna raises any exception on rows that it would never write
        raise _unreadable_file(file, one_line(error)) from None
    # commits without fsync are fast, and a killed process still loses no committed data
    use_pragmas(storage, "journal_mode=WAL", "synchronous=NORMAL")
    return storage


def _unreadable_file(file: Path, reason: str) -> RunError:
    return RunError(f"{file} is damaged, or another version of mnas wrote it ({reason})")


def unreadable(storage: BaseStorage, folder: Path) -> str:
    """Return `trial 3 cannot be read `, for the first trial that Optuna cannot read."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(folder / "study.db")) as database:
        for trial_id, number in database.execute("SELECT trial_id, number FROM trials ORDER BY trial_id"):
            try:
                storage.get_trial(trial_id)
            except Exception:
                return f"trial {number} cannot be read "
    return "a trial cannot be read "


_OF_STUDIES = ("study_directions", "study_user_attributes", "study_system_attributes")
_OF_TRIALS = ("trial_params", "trial_values", "trial_user_attributes", "trial_system_attributes")


def broken_table(folder: Path) -> str:
    """Return the fault of a table that lacks its keys or has rows of a missing trial; else an empty string."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(folder / "study.db")) as database:
        for table in ("studies", "trials"):
            if not any(column[5] for column in database.execute(f"PRAGMA table_info({table})")):
                return f"{table} has lost its primary key, so that rows may be duplicated"
        for table in (*_OF_STUDIES, *_OF_TRIALS):
            if not any(index[2] for index in database.execute(f"PRAGMA index_list({table})")):
                return f"{table} has lost its unique keys, so that rows may be duplicated"
        for table in _OF_TRIALS:
            query = f"SELECT trial_id FROM {table} WHERE trial_id NOT IN (SELECT trial_id FROM trials) LIMIT 1"
            if row := database.execute(query).fetchone():
                return f"{table} has rows of a trial (trial_id {row[0]}) that is missing from trials"
    return ""
