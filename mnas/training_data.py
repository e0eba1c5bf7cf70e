"""The record of the images that a model was trained on, so that they are not scored as held-out images."""

import re
import reprlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from mnas.require import require_int

STAT = "stat:"
"""Prefix of a content digest of file names, sizes and times instead of bytes."""
MOST_TRAININGS = 16
"""Largest number of successive trainings in a model file."""
_LONGEST_NAME = 200
_CONTENT = re.compile(rf"({STAT})?[0-9a-f]{{16,128}}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The images of one training, and their split. Raises ValueError if a field is out of range."""

    name: str
    """Name of the data set or folder, printable and at most 200 characters."""
    content: str
    """Digest of the data: `mnas.data.batches.Batches.content`."""
    images: int
    """Number of images in all parts that were used."""
    seed: int
    """Seed of the split."""
    max_images_per_class: int
    """Limit on the training images of a class, drawn by the seed; 0 means no limit."""
    held_out: bool
    """Whether the validation images were drawn from the training images by the seed; else the data has its own."""

    def __post_init__(self) -> None:
        if type(self.name) is not str or not 0 < len(self.name) <= _LONGEST_NAME or not self.name.isprintable():
            got = reprlib.repr(self.name)
            raise ValueError(f"name must be 1 to {_LONGEST_NAME} printable characters, but got {got}")
        if type(self.content) is not str or not _CONTENT.fullmatch(self.content):
            raise ValueError(
                f"content must be 16 to 128 hexadecimal digits, with or without {STAT} before them, but got "
                f"{reprlib.repr(self.content)}"
            )
        require_int("images", self.images, 1, 2**53)
        require_int("seed", self.seed, 0, 2**63 - 1)
        require_int("max_images_per_class", self.max_images_per_class, 0, 2**53)
        if type(self.held_out) is not bool:
            raise ValueError(f"held_out must be true or false, but got {reprlib.repr(self.held_out)}")


TrainedOn = tuple[TrainingData, ...]
"""The trainings of a model, the last one first, including those of the weights it started from; empty: not recorded."""


def printable_name(name: str) -> str:
    """Return `name` as a valid name of `TrainingData`: printable, shortened, never empty."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:_LONGEST_NAME] or "?"


def trained_on_json(trainings: TrainedOn) -> list[dict[str, Any]]:
    """Return JSON-able values for `read_trained_on`."""
    return [asdict(training) for training in trainings]


def read_trained_on(values: object) -> TrainedOn:
    """Return the trainings of untrusted values from `trained_on_json`.

    Keys of later versions are ignored.

    Raises:
        ValueError: the values have another form; one line that names the fault.
    """
    if not isinstance(values, list) or len(values) > MOST_TRAININGS:
        got = f"a list of {len(values)}" if isinstance(values, list) else reprlib.repr(values)
        raise ValueError(f"trained_on must be a list of at most {MOST_TRAININGS} trainings, but got {got}")
    names = [field.name for field in fields(TrainingData)]
    trainings = []
    for value in values:
        if not isinstance(value, dict) or not set(names) <= set(value):
            raise ValueError(f"trained_on must contain objects with {', '.join(names)}, but got {reprlib.repr(value)}")
        try:
            trainings.append(TrainingData(**{name: value[name] for name in names}))
        except ValueError as error:
            raise ValueError(f"trained_on: {error}") from None
    return tuple(trainings)


def after_training(latest: TrainingData | None, earlier: Sequence[TrainingData]) -> TrainedOn:
    """Return the trainings of a model that was trained on `latest` from weights that were trained on `earlier`.

    Each data set and split occurs once. Without a record of the latest the result is empty, as a part would mislead.
    """
    return () if latest is None else tuple(dict.fromkeys((latest, *earlier)))[:MOST_TRAININGS]
