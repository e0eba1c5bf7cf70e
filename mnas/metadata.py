"""Metadata of a model file: one record for all formats and authors."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnas.architecture import Architecture, architecture_from_dict
from mnas.labels import label_fault, shown
from mnas.require import require_int, require_number
from mnas.training_data import TrainedOn, read_trained_on, trained_on_json

Triple = tuple[float, float, float]
"""One number for each channel of an RGB image."""
MOST_CLASSES = 10_000_000
DETECTOR_KEY = "detector"
"""Key that only the metadata of detectors have."""


def check_mean(mean: Sequence[object], name: str = "mean") -> None:
    """Raise ValueError, naming `name`, unless `mean` is three finite numbers."""
    if len(mean) != 3 or not all(_is_finite(value) for value in mean):
        raise ValueError(f"{name} must be three finite numbers, one per channel, but got {reprlib.repr(mean)}")


def check_std(std: Sequence[object], name: str = "std") -> None:
    """Raise ValueError, naming `name`, unless `std` is three finite numbers above 0."""
    if len(std) != 3 or not all(_is_finite(value) and value > 0 for value in std):  # type: ignore[operator]
        raise ValueError(f"{name} must be three finite numbers above 0, one per channel, but got {reprlib.repr(std)}")


def check_crop(crop: object, name: str = "crop") -> None:
    """Raise ValueError, naming `name`, unless `crop` is a share of an image's side: above 0, at most 1."""
    if not _is_finite(crop) or not 0 < crop <= 1:  # type: ignore[operator]
        raise ValueError(f"{name} must be above 0 and at most 1, but got {reprlib.repr(crop)}")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """A network, its input images, and its classes. Raises ValueError if a field is out of range."""

    arch: Architecture
    """Architecture of the network."""
    input_size: int
    """Side of the square images, in pixels."""
    classes: tuple[str, ...] = ()
    """Class names in the order of the outputs, each one line of text; empty if they are not recorded."""
    unnamed_classes: int = 0
    """Number of outputs if the classes have no names, else 0."""
    mean: Triple | None = None
    """Mean of pixels in [0, 1]: the network takes (pixel / 255 - mean) / std. None if it is not recorded."""
    std: Triple | None = None
    """Standard deviation of pixels in [0, 1], above 0; None if it is not recorded."""
    crop: float = 1.0
    """Side of the network's view, as a share of an image's centre square (ImageNet's evaluation: 0.875)."""
    softmax: bool = False
    """Whether the outputs are probabilities instead of logits."""
    accuracy: float | None = None
    """Accuracy of exactly these weights on the validation images; None if they were not scored."""
    trained_on: TrainedOn = ()
    """Images of the network's trainings, the last training first; empty if they are not recorded."""

    def __post_init__(self) -> None:
        self.arch.check_input_size(self.input_size, "input_size")
        if bool(self.classes) == bool(self.unnamed_classes):
            raise ValueError("a model must have either class names or a number of unnamed classes")
        if not self.classes:
            require_int("num_classes", self.unnamed_classes, 1, MOST_CLASSES)
        for name in self.classes:
            if fault := label_fault(name):
                raise ValueError(f"a label must be one line of text, but got {shown(name)} ({fault})")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std must be recorded together, but got only one of them")
        if self.mean is not None and self.std is not None:
            check_mean(self.mean)
            check_std(self.std)
        check_crop(self.crop)
        if type(self.softmax) is not bool:
            raise ValueError(f"softmax must be true or false, but got {reprlib.repr(self.softmax)}")
        if self.accuracy is not None:
            require_number("accuracy", self.accuracy, 0, 1)

    @property
    def num_classes(self) -> int:
        """Number of the network's outputs."""
        return len(self.classes) or self.unnamed_classes

    @property
    def normalisation(self) -> tuple[Triple, Triple]:
        """Mean and standard deviation. Raises ValueError if they are not recorded."""
        if self.mean is None or self.std is None:
            raise ValueError("the model must record how its images are normalised, but has no mean and std")
        return self.mean, self.std


def metadata_json(metadata: ModelMetadata) -> dict[str, Any]:
    """Return JSON-able values for `metadata_from_json`, as all formats except LiteRT store them."""
    values = {
        "arch": metadata.arch.to_dict(),
        "classes": list(metadata.classes),
        "mean": metadata.mean,
        "std": metadata.std,
        "input_size": metadata.input_size,
        "accuracy": metadata.accuracy,
        "crop": metadata.crop,
    }
    return values | ({"trained_on": trained_on_json(metadata.trained_on)} if metadata.trained_on else {})


def require_classifier(values: Mapping[str, Any]) -> None:
    """Raise ValueError if values of a file's metadata are those of a detector (`mnas.detector.detector_json`)."""
    if DETECTOR_KEY in values:
        raise ValueError(
            "it is a detector, and a classifier is required; mnas detect predict, eval and export take detectors"
        )


def metadata_from_json(values: Mapping[str, Any]) -> ModelMetadata:
    """Return the record of values from `metadata_json` or a LiteRT file (mnas/tflite/metadata.py).

    Raises KeyError, TypeError or ValueError for other values.
    """
    require_classifier(values)
    arch = architecture_from_dict(values["arch"])
    if values.get("fingerprint", arch.fingerprint) != arch.fingerprint:
        got = f"{reprlib.repr(values['fingerprint'])} beside an architecture of {arch.fingerprint}"
        raise ValueError(f"fingerprint must be the architecture's, but got {got}")
    names = values["classes"] if "classes" in values else values["labels"]
    if not isinstance(names, list | tuple) or not all(type(name) is str for name in names):
        raise ValueError(f"classes must be a list of names, but got {reprlib.repr(names)}")
    count = values.get("num_classes", len(names))
    if names and count != len(names):
        raise ValueError(f"there must be one label for each of the {reprlib.repr(count)} classes, but got {len(names)}")
    if not names and "num_classes" not in values:
        raise ValueError("classes must be a list of names, but got an empty one")
    return ModelMetadata(
        arch=arch,
        input_size=values["input_size"],
        classes=tuple(names),
        unnamed_classes=0 if names else count,
        mean=_triple("mean", values["mean"]),
        std=_triple("std", values["std"]),
        crop=values.get("crop", 1.0),
        softmax=values.get("softmax", False),
        accuracy=values.get("accuracy"),
        trained_on=read_trained_on(values.get("trained_on", [])),
    )


def _triple(name: str, values: object) -> Triple | None:
    if values is None:
        return None
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise ValueError(f"{name} must be a list of three numbers, but got {reprlib.repr(values)}")
    red, green, blue = values
    return red, green, blue
