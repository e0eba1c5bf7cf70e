"""A training's folder: `config.json` when it begins, `result.json` when it is finished, never a second training."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock

from mnas.arch import require_number
from mnas.atomic import require_writable, write_atomic
from mnas.formats import WEIGHTS_NAME
from mnas.readers import read_json, require_types
from mnas.train.checkpoint import differences

CONFIG_NAME = "config.json"
CHECKPOINT_NAME = "checkpoint.pt"
RESULT_NAME = "result.json"
_OURS = (CONFIG_NAME, CHECKPOINT_NAME, WEIGHTS_NAME, RESULT_NAME)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training."""

    weights: Path
    accuracy: float
    """Of these weights, on the validation images."""
    test_accuracy: float | None
    """On the test images, which were used for nothing else; None where the data has none."""
    epochs: int
    seconds: float
    """Of training and scoring, without what was lost with a process that was killed."""
    images_per_s: float
    """Of training."""
    waiting: float
    """Share of the training time in which data was waited for."""
    balanced_accuracy: float | None = None
    """Mean of the classes' recalls on the validation images; None in results that were made before it was kept."""
    test_balanced_accuracy: float | None = None
    """The same on the test images."""
    majority_share: float | None = None
    """The accuracy of always saying the most frequent class of the validation images."""


def require_free(folder: Path, resume: bool) -> None:
    """Raise ValueError where a training is in the folder, and is not to be resumed; or where it cannot be written."""
    require_writable(folder, "--out")
    there = [name for name in _OURS if (folder / name).exists()]
    if there and not resume:
        raise ValueError(
            f"a training must not overwrite another, but got {folder}, which holds {there[0]}; go on with it "
            "(--resume), or choose another --out"
        )


@contextmanager
def claimed(folder: Path, identity: Mapping[str, Any], facts: Mapping[str, Any], resume: bool) -> Iterator[None]:
    """Make the folder this training's own, and hold it against other processes.

    What fails before its first checkpoint leaves the folder to the next training, whatever that is.

    Args:
        identity: what must be the same when the training is resumed.
        facts: what else `config.json` is to say.

    Raises:
        ValueError: a training is in it, and `resume` is not given; one of another identity; another process is at it.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ValueError(f"a training must have its folder to itself, but got {folder}, where one is running") from None
    try:
        require_free(folder, resume)
        there = [name for name in _OURS if (folder / name).exists()]
        if there and CONFIG_NAME not in there:
            raise ValueError(
                f"a training to go on with must have its {CONFIG_NAME}, but got {folder}, which holds only "
                f"{', '.join(there)}; rename that folder to train anew"
            )
        if there:
            _check_identity(folder, identity)
        else:
            write_atomic(folder / CONFIG_NAME, json.dumps({"identity": identity, **facts}, indent=1) + "\n")
        try:
            yield
        except BaseException:
            if not any((folder / name).exists() for name in _OURS[1:]):
                (folder / CONFIG_NAME).unlink(missing_ok=True)  # nothing to go on from: the folder is free again
            raise
    finally:
        lock.release()


def _check_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    try:
        there = read_json(folder / CONFIG_NAME)["identity"]
        different = differences(there, json.loads(json.dumps(identity)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / CONFIG_NAME} must be a training's, but got {error!r}; rename that folder to train anew"
        ) from None
    if different:
        raise ValueError(f"{folder} holds another training ({different}); rename that folder to train anew")


def write_result(folder: Path, trained: Trained) -> None:
    """Mark the training as finished. Raises OSError."""
    write_atomic(folder / RESULT_NAME, json.dumps(asdict(trained) | {"weights": trained.weights.name}, indent=1) + "\n")


def read_result(folder: Path) -> Trained | None:
    """The finished training in `folder`; None where it is not finished.

    Raises:
        ValueError: the result is damaged.
    """
    path = folder / RESULT_NAME
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        require_types(Trained, values)
        require_number("accuracy", values["accuracy"], 0, 1)
        return Trained(**values | {"weights": folder / WEIGHTS_NAME})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} must be a training's result, but got {error!r}; remove its folder") from None
