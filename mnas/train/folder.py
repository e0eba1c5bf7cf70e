"""The folder of a single training: `config.json` from the start, `result.json` at the end."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import filelock

from mnas.atomic import require_writable, write_atomic
from mnas.formats import WEIGHTS_NAME
from mnas.readers import read_json, require_types
from mnas.require import require_number
from mnas.train.checkpoint import differences

CONFIG_NAME = "config.json"
CHECKPOINT_NAME = "checkpoint.pt"
RESULT_NAME = "result.json"
PAGE_NAME = "report.html"
Explain = Callable[[str, Mapping[str, Any], Mapping[str, Any]], str]
"""Name of a field of the identities that differs, content of the stored config.json, that of this training -> the
difference in words; empty: the values are words already."""
_OURS = (CONFIG_NAME, CHECKPOINT_NAME, WEIGHTS_NAME, RESULT_NAME)


@dataclass(frozen=True, kw_only=True)
class FinishedTraining:
    """The fields that the result of every finished training has."""

    weights: Path
    epochs: int
    seconds: float
    """Time of training and scoring, in seconds, without work that a killed process lost."""
    images_per_s: float
    """Training speed, in images per second."""
    waiting: float
    """Share of the training time spent waiting for data."""

    @property
    def report(self) -> Path:
        """Page with the mistakes that this network makes, and sample images, in the training's folder."""
        return self.weights.with_name(PAGE_NAME)


Finished = TypeVar("Finished", bound=FinishedTraining)


@dataclass(frozen=True, kw_only=True)
class Trained(FinishedTraining):
    """A finished training of a classifier."""

    accuracy: float
    """Accuracy of these weights on the validation images."""
    test_accuracy: float | None
    """Accuracy on the test images, which nothing else uses; None if the data has none."""
    balanced_accuracy: float | None = None
    """Mean of the classes' recalls on the validation images; None in results of earlier versions."""
    test_balanced_accuracy: float | None = None
    """Mean of the classes' recalls on the test images."""
    majority_share: float | None = None
    """Accuracy of always predicting the most frequent class of the validation images."""
    best_epoch: int | None = None
    """Epoch of these weights with --patience (0: the initial ones); None: the last one."""
    restarts: int = 0
    """Number of times that the training diverged and went back to its best epoch."""


def require_free(folder: Path, resume: bool) -> None:
    """Raise ValueError if the folder contains a training and `resume` is False, or cannot be written."""
    require_writable(folder, "--out")
    there = [name for name in _OURS if (folder / name).exists()]
    if there and not resume:
        raise ValueError(
            f"{folder} already contains a training ({there[0]}); resume it with --resume, or choose another --out"
        )


@contextmanager
def claimed(
    folder: Path,
    identity: Mapping[str, Any],
    facts: Mapping[str, Any],
    resume: bool,
    explain: Explain = lambda *_: "",
) -> Iterator[None]:
    """Reserve the folder for this training and lock it against other processes.

    A training that fails before its first checkpoint leaves the folder free for any other training.

    Args:
        identity: values that must be equal when the training is resumed.
        facts: further values for `config.json`.
        explain: says in words how this training differs from the one in the folder.

    Raises:
        ValueError: the folder contains a training and `resume` is False, it contains another training, or another
            process uses it.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ValueError(f"another process is training in {folder}; wait for it, or choose another --out") from None
    try:
        require_free(folder, resume)
        there = [name for name in _OURS if (folder / name).exists()]
        if there and CONFIG_NAME not in there:
            raise ValueError(
                f"a training can be resumed only with its {CONFIG_NAME}, but {folder} contains only "
                f"{', '.join(there)}; rename that folder to start a new training"
            )
        if there:
            _check_identity(folder, identity, facts, explain)
        else:
            write_atomic(folder / CONFIG_NAME, json.dumps({"identity": identity, **facts}, indent=1) + "\n")
        try:
            yield
        except BaseException:
            if not any((folder / name).exists() for name in _OURS[1:]):
                (folder / CONFIG_NAME).unlink(missing_ok=True)  # without a checkpoint there is nothing to resume
            raise
    finally:
        lock.release()


def _check_identity(folder: Path, identity: Mapping[str, Any], facts: Mapping[str, Any], explain: Explain) -> None:
    try:
        stored, here = read_json(folder / CONFIG_NAME), json.loads(json.dumps(identity))
        there, content = stored["identity"], {"identity": here, **facts}
        different = ", ".join(
            explain(name, stored, content) or differences({name: there.get(name)}, {name: here.get(name)})
            for name in dict.fromkeys([*there, *here])
            if there.get(name) != here.get(name)
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / CONFIG_NAME} is not the configuration of a training ({error!r}); rename that folder to start "
            "a new training"
        ) from None
    if different:
        raise ValueError(
            f"{folder} contains a training with other settings ({different}). Use the same settings, or rename that "
            "folder to start a new training."
        )


def write_result(folder: Path, trained: FinishedTraining) -> None:
    """Mark the training as finished. Raises OSError."""
    write_atomic(folder / RESULT_NAME, json.dumps(asdict(trained) | {"weights": trained.weights.name}, indent=1) + "\n")


def read_result(folder: Path) -> Trained | None:
    """Return the finished training of a classifier in `folder`; None if it is not finished. Raises ValueError."""
    return read_finished(folder, Trained, "accuracy", "a training")


def read_finished(folder: Path, record: type[Finished], share: str, title: str) -> Finished | None:
    """Return the finished training in `folder`; None if it is not finished.

    Args:
        share: name of a field that must be from 0 to 1.
        title: kind of training, for messages.

    Raises:
        ValueError: the result is damaged.
    """
    path = folder / RESULT_NAME
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        require_types(record, values)
        require_number(share, values[share], 0, 1)
        return record(**values | {"weights": folder / WEIGHTS_NAME})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is not the result of {title} ({error!r}); remove it, and use --resume to write it again"
        ) from None
