"""The metadata of a model, from its file and from its user; imports no runtime."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnas.architecture import Architecture
from mnas.data.image import Pixels
from mnas.foreign.limits import require_threads_here
from mnas.formats import FormatName
from mnas.metadata import Triple, check_crop, check_mean, check_std
from mnas.require import require_input_size
from mnas.training_data import TrainedOn

Run = Callable[[Pixels], NDArray[np.float32]]
"""uint8 (N, S, S, 3) -> float32 (N, outputs), for any types and layout in the file."""

NORMALISATIONS = (
    "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 (timm, torchvision), --mean 0.5 --std 0.5 (-1 to 1), "
    "--mean 0 --std 1 (0 to 1) or --mean 0 --std 0.00392157 (0 to 255)"
)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The metadata of a model."""

    format: FormatName
    """Format of the model: `mnas` for .safetensors of mnas and for other weights in torch, else the runtime's name."""
    classes: tuple[str, ...] | None
    """Name of each output, in order; None where neither the file nor the user gives names."""
    outputs: int
    input_size: int
    """Side of the square image, in pixels."""
    mean: Triple | None
    """Mean of pixels from 0 to 1: the model's input is (pixel / 255 - mean) / std. None where the model takes unscaled
    pixels (a quantised input, whose whole range means 0..255)."""
    std: Triple | None
    crop: float
    """Share of the side of an image's centre square that the model gets."""
    arch: Architecture | None
    """Architecture; None for files of other programs."""
    probabilities: bool
    """Whether the outputs are probabilities; otherwise they are logits."""
    size_bytes: int
    """Size of the file, in bytes."""
    independent: bool = False
    """Whether each output is a separate probability (a sigmoid), so that several classes may be present at once."""
    ours: bool = False
    """Whether mnas wrote the file."""
    trained_on: TrainedOn = ()
    """Images of the model's trainings, from the file's record; empty without one."""
    notes: tuple[str, ...] = ()
    """Assumptions about the model, in words."""

    def label(self, index: int) -> str:
        """Return the name of an output: its class, or `class 17` where there is no name."""
        return f"class {index}" if self.classes is None else self.classes[index]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A class that an image may show, and its probability."""

    label: str
    index: int
    """Index of the output."""
    probability: float


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The user's statements about a model, which override the file's. None: use the file's.

    Raises ValueError where a field is out of its range.
    """

    classes: tuple[str, ...] | None = None
    input_size: int | None = None
    mean: Triple | None = None
    std: Triple | None = None
    crop: float | None = None
    threads: int = 1
    allow_changed: bool = False
    """Whether a file written by mnas may have been changed after mnas wrote it."""

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ValueError("--mean and --std must be given together, but got only one of them")
        if self.mean is not None:
            check_mean(self.mean, "--mean")
        if self.std is not None:
            check_std(self.std, "--std")
        if self.input_size is not None:
            require_input_size("--input-size", self.input_size)
        if self.crop is not None:
            check_crop(self.crop, "--crop")
        require_threads_here("--threads", self.threads)


def class_names(wanted: Wanted, own: tuple[str, ...] | None, outputs: int, name: str) -> tuple[str, ...] | None:
    """Return a name for each of the outputs, or None without names.

    ImageNet's lists come with and without `background`, which its older models have as output 0. No other list with one
    extra name is accepted: the extra name is unknown, and each name could be that of the neighbouring output.

    Raises:
        ValueError: the user's names are too many or too few. A file's own names are ignored if their number differs.
    """
    outputs = max(outputs, 2)  # a single output is the probability of the second of two classes
    if wanted.classes is None:
        return own if own is not None and len(own) == outputs else None
    names = wanted.classes
    if (len(names), outputs) == (1001, 1000) and names[0].strip().lower() == "background":
        return names[1:]
    if (len(names), outputs) == (1000, 1001):
        return ("background", *names)
    if len(names) != outputs:
        raise ValueError(
            f"--class-file must name each of the {outputs} outputs of {name!r}, but got {len(names)} names"
        )
    return names
