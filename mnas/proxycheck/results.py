"""Trainings of a proxy check, written to one JSON file one by one, so that a check can be resumed."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from mnas.atomic import write_atomic
from mnas.readers import read_json
from mnas.require import require_number
from mnas.study import RunError, differences

FILE_NAME = "trainings.json"
FORMAT = "mnas proxy check 1"


class Results:
    """Trainings of one check; use `open_results`."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self._path, self._values = path, values

    @property
    def trainings(self) -> Mapping[str, Mapping[str, Any]]:
        """Key of each training -> an evaluation as a dict, or {"error": why it failed}."""
        trainings: Mapping[str, Mapping[str, Any]] = self._values["trainings"]
        return trainings

    def keep(self, key: str, outcome: Mapping[str, Any]) -> None:
        """Add a training and write it to disk. Raises OSError."""
        self._values["trainings"][key] = dict(outcome)
        self._write()

    def _write(self) -> None:
        write_atomic(self._path, json.dumps(self._values, indent=1))


def key_of(setting: str, fingerprint: str, seed: int) -> str:
    """Return the key of one training."""
    return f"{setting} {fingerprint} {seed}"


@contextlib.contextmanager
def open_results(folder: Path, config: Mapping[str, Any]) -> Iterator[Results]:
    """Open the trainings in `folder` for exclusive use; `config` must be equal at every start.

    Raises:
        RunError: the folder is in use, has another configuration, or is damaged. OSError: it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"--out must be a folder, but {folder} is a file; choose another --out")
    path = folder / FILE_NAME
    if folder.is_dir() and not path.exists() and any(p.name != "lock" and p.name[0] != "." for p in folder.iterdir()):
        raise RunError(f"{folder} is not a proxy check (it contains no {FILE_NAME}); choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0.5)
    except filelock.Timeout:
        raise RunError(
            f"{folder} is in use by another process; wait for it, stop it, or choose another --out"
        ) from None
    try:
        config = json.loads(json.dumps(config))  # as JSON reads it back
        values: dict[str, Any] = _read(path) if path.exists() else {"format": FORMAT, "config": config, "trainings": {}}
        if differing := differences(values["config"], config):
            raise RunError(
                f"{folder} has another configuration ({differing}); use the same options, or choose another --out"
            )
        yield Results(path, values)
    finally:
        lock.release()


def _read(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
        if values["format"] == FORMAT and isinstance(values["config"], dict) and isinstance(values["trainings"], dict):
            for training in values["trainings"].values():
                _require_outcome(training)
            return dict(values)
    except (ValueError, KeyError, TypeError):
        pass
    raise RunError(f"{path} is damaged, or another version of mnas wrote it; remove it, or choose another --out")


def _require_outcome(training: Any) -> None:
    """Raise ValueError, KeyError or TypeError unless the training is an error's text or numbers with an accuracy."""
    if "error" in training:
        if not isinstance(training["error"], str):
            raise ValueError(f"an error must be text, but got {training['error']!r}")
        return
    require_number("accuracy", training["accuracy"], 0, 1)
    require_number("train_s", training.get("train_s", 0.0), 0, math.inf)
