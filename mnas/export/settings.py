"""Settings of `mnas export`: the model, the files to write, and their tolerances."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from mnas.export.target import TOLERANCES, Kind, Target, Tolerance
from mnas.formats import ExportName
from mnas.require import flag_of

Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Settings of an export. Raises ValueError where a field is out of its range, or fields contradict each other."""

    model: str = field(kw_only=False)
    """Weights file (.safetensors) of mnas, folder of a training, trial with weights (runs/NAME#17), or, with --weights,
    an architecture."""
    to: str
    """Formats to export to, separated by commas: litert, onnx, executorch."""
    int8: bool = False
    """Quantise a LiteRT file to int8, a quarter of the size. Needs --data for training images to calibrate on, and the
    extra mnas[quantize]."""
    fp16: bool = False
    """Store the weights of a LiteRT file as float16, half of the size. Needs the extra mnas[quantize]."""
    integer_io: bool = False
    """With --int8, also use int8 for input and output, for microcontrollers and accelerators without floats."""
    softmax: bool = False
    """Make a LiteRT file return probabilities instead of logits, as ML Kit and MediaPipe expect."""
    out: Path | None = None
    """File or folder to write to. By default the file has the model's name and is beside it, or, for a trial or an
    architecture, in the current folder."""
    overwrite: bool = False
    """Replace an existing file. A file that fails verification never replaces one."""
    weights: str = ""
    """Weights for a MODEL that is an architecture: timm, torchvision, pretrained or a file. timm and torchvision
    download them, pretrained needs the extra mnas[pretrained], and a file ends in .pth, .pt, .bin or .safetensors."""
    class_file: Path | None = None
    """With --weights, file with the class names: one per line, or JSON (a list, or an object {"0": NAME, ...}); by
    default those of ImageNet, or of a file of mnas."""

    data: str | None = None
    """Data set that the model was trained on: digits, cifar10, fashion-mnist, imagenet or a folder. Without it, mnas
    compares files on crops of two photographs of scikit-learn."""
    data_dir: Path | None = None
    """Folder with cifar10, fashion-mnist or imagenet, to which --download writes; by default downloads/ in the cache
    folder (~/.cache/mnas on Linux)."""
    download: bool = False
    """Download cifar10 or fashion-mnist if they are missing."""
    calibration_images: int = 200
    """Number of training images on which --int8 calibrates the ranges of activations."""
    images: int = 1000
    """Number of validation images on which to compare the file with the network; 0: all."""
    part: Literal["auto", "all"] = "auto"
    """Images to compare on. auto: the images that the training held out, or the data's validation part. all: any image,
    for data that the model was not trained on."""
    seed: int | Auto = "auto"
    """Seed with which the training chose its held-out images, for data without a validation part; auto: the seed stored
    with the model."""

    max_difference: float | Auto = "auto"
    """Largest accepted difference between an output of the file and of the network, as a share of the largest output;
    auto: 1e-4, 0.05 with --fp16, any difference with --int8."""
    min_agreement: float | Auto = "auto"
    """Smallest accepted share of images for which file and network predict the same class; auto: 0.995, 0.98 with
    --fp16, 0.85 with --int8."""
    max_accuracy_loss: float | Auto = "auto"
    """Largest accepted loss of accuracy, from 0 to 1; auto: 0.0005, 0.005 with --fp16, 0.01 with --int8."""
    speed_s: float = 3.0
    """Time for measuring the latency of each file, in seconds; 0: do not measure."""

    def __post_init__(self) -> None:
        targets = self.targets()  # raises its errors before any work
        if self.int8 and self.data is None:
            raise ValueError(
                "--int8 needs --data for images to calibrate on, but got none; give the data set of the training"
            )
        if len(targets) > 1 and self.out is not None and not self.out.is_dir():
            raise ValueError(f"--out must be an existing folder for several files, but got {str(self.out)!r}")
        for name, low in (("calibration_images", 1), ("images", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{flag_of(name)} must be {low} or more, but got {getattr(self, name)}")
        if self.class_file is not None and not self.weights:
            raise ValueError(
                "--class-file must be used with --weights, but got it alone; other models have class names"
            )
        if self.seed != "auto" and self.seed < 0:
            raise ValueError(f"--seed must be auto, or 0 or more, but got {self.seed}")
        for limit in dataclasses.fields(Tolerance):
            value = getattr(self, limit.name)
            if value != "auto" and not value >= 0:
                raise ValueError(f"{flag_of(limit.name)} must be 0 or more, but got {value}")
            if value != "auto" and limit.name != "max_difference" and value > 1:
                flag = flag_of(limit.name)
                raise ValueError(f"{flag} must be a share from 0 to 1 (0.01 is one point), but got {value}")
        if not 0 <= self.speed_s < math.inf:
            raise ValueError(f"--speed-s must be 0 (not measured) or more, but got {self.speed_s}")

    def targets(self) -> list[Target]:
        """Return the files to make. Raises ValueError for contradicting options."""
        names = list(dict.fromkeys(name.strip() for name in self.to.split(",")))
        for name in names:
            if name not in get_args(ExportName):
                raise ValueError(f"--to must be one or more of {', '.join(get_args(ExportName))}, but got {name!r}")
        if self.int8 and self.fp16:
            raise ValueError("--int8 and --fp16 must not be used together, but got both; export twice")
        if self.integer_io and not self.int8:
            raise ValueError("--integer-io must be used with --int8, but got it alone")
        for option in ("int8", "fp16", "softmax"):
            if getattr(self, option) and names != ["litert"]:
                raise ValueError(
                    f"--{option} must be used with --to litert alone, but got --to {self.to}; export twice"
                )
        kind: Kind = "int8" if self.int8 else "fp16" if self.fp16 else "fp32"
        return [
            Target(format=name, kind=kind, softmax=self.softmax, integer_io=self.integer_io)  # type: ignore[arg-type]
            for name in names
        ]

    def tolerance(self, kind: Kind) -> Tolerance:
        """Return the tolerance for files of this kind."""
        limits = {limit.name: getattr(self, limit.name) for limit in dataclasses.fields(Tolerance)}
        return dataclasses.replace(TOLERANCES[kind], **{name: v for name, v in limits.items() if v != "auto"})
