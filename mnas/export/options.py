"""The options that all exports have: the files to write, and how much to compare and measure."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mnas.export.target import Kind, Target
from mnas.require import flag_of, require_int

Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions(ABC):
    """The files of an export. Raises ValueError where a field is out of its range, or fields contradict each other."""

    to: str
    """Formats to export to, separated by commas."""
    int8: bool = False
    """Quantise a LiteRT file to int8, a quarter of the size. Needs --data for training images to calibrate on, and the
    extra mnas[quantize]."""
    fp16: bool = False
    """Store the weights of a LiteRT file as float16, half of the size. Needs the extra mnas[quantize]."""
    out: Path | None = None
    """File or folder to write to. By default the file has the model's name and is beside it."""
    overwrite: bool = False
    """Replace an existing file. A file that fails verification never replaces one."""
    data: str | None = None
    """Data set that the model was trained on."""
    calibration_images: int = 200
    """Number of training images on which --int8 calibrates the ranges of activations."""
    images: int = 1000
    """Largest number of validation images on which to compare the file with the network; 0: all."""
    seed: int | Auto = "auto"
    """Seed with which the training chose its held-out images, for data without a validation part; auto: the seed stored
    with the model."""
    speed_s: float = 3.0
    """Time for measuring the latency of each file, in seconds; 0: do not measure."""

    def __post_init__(self) -> None:
        targets = self.targets()  # raises its errors before any work
        if self.int8 and self.data is None:
            raise ValueError(
                "--int8 needs --data for images to calibrate on, but got none; give the data of the training"
            )
        if len(targets) > 1 and self.out is not None and not self.out.is_dir():
            raise ValueError(f"--out must be an existing folder for several files, but got {str(self.out)!r}")
        for name, low in (("calibration_images", 1), ("images", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{flag_of(name)} must be {low} or more, but got {getattr(self, name)}")
        if self.seed != "auto":
            require_int("--seed", self.seed, 0, 2**63 - 1)
        if not 0 <= self.speed_s < math.inf:
            raise ValueError(f"--speed-s must be 0 (not measured) or more, but got {self.speed_s}")

    @abstractmethod
    def targets(self) -> list[Target]:
        """Return the files to make. Raises ValueError for contradicting options."""

    @property
    def split_seed(self) -> int | None:
        """The seed; None for the one that is stored with the model."""
        return None if self.seed == "auto" else self.seed

    def _formats(self, allowed: Sequence[str], litert_only: Sequence[str]) -> tuple[list[str], Kind]:
        """Return the formats and the kind of numbers. Raises ValueError for contradicting options.

        Args:
            allowed: formats that exist.
            litert_only: fields that only LiteRT files can have.
        """
        names = list(dict.fromkeys(name.strip() for name in self.to.split(",")))
        for name in names:
            if name not in allowed:
                raise ValueError(f"--to must be one or more of {', '.join(allowed)}, but got {name!r}")
        if self.int8 and self.fp16:
            raise ValueError("--int8 and --fp16 must not be used together, but got both; export twice")
        for field in litert_only:
            if getattr(self, field) and names != ["litert"]:
                raise ValueError(
                    f"{flag_of(field)} must be used with --to litert alone, but got --to {self.to}; export twice"
                )
        return names, "int8" if self.int8 else "fp16" if self.fp16 else "fp32"
