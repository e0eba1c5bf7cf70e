"""Settings of `mnas export`: the model, the files to write, and their tolerances."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from mnas.export.options import Auto, ExportOptions
from mnas.export.target import TOLERANCES, Kind, Target, Tolerance
from mnas.formats import ExportName
from mnas.require import flag_of


@dataclass(frozen=True, kw_only=True)
class ExportSettings(ExportOptions):
    """Settings of a classifier's export. Raises ValueError for fields out of range or in contradiction."""

    model: str = field(kw_only=False)
    """Weights file (.safetensors) of mnas, folder of a training, trial with weights (runs/NAME#17), or, with --weights,
    an architecture."""
    to: str
    """Formats to export to, separated by commas: litert, onnx, executorch."""
    integer_io: bool = False
    """With --int8, also use int8 for input and output, for microcontrollers and accelerators without floats."""
    softmax: bool = False
    """Make a LiteRT file return probabilities instead of logits, as ML Kit and MediaPipe expect."""
    out: Path | None = None
    """File or folder to write to. By default the file has the model's name and is beside it, or, for a trial or an
    architecture, in the current folder."""
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
    part: Literal["auto", "all"] = "auto"
    """Images to compare on. auto: the images that the training held out, or the data's validation part. all: any image,
    for data that the model was not trained on."""
    max_difference: float | Auto = "auto"
    """Largest accepted difference between an output of the file and of the network, as a share of the largest output;
    auto: 1e-4, 0.05 with --fp16, any difference with --int8."""
    min_agreement: float | Auto = "auto"
    """Smallest accepted share of images for which file and network predict the same class; auto: 0.995, 0.98 with
    --fp16, 0.85 with --int8."""
    max_accuracy_loss: float | Auto = "auto"
    """Largest accepted loss of accuracy, from 0 to 1; auto: 0.0005, 0.005 with --fp16, 0.01 with --int8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_file is not None and not self.weights:
            raise ValueError(
                "--class-file must be used with --weights, but got it alone; other models have class names"
            )
        for limit in dataclasses.fields(Tolerance):
            value = getattr(self, limit.name)
            if value != "auto" and not value >= 0:
                raise ValueError(f"{flag_of(limit.name)} must be 0 or more, but got {value}")
            if value != "auto" and limit.name != "max_difference" and value > 1:
                flag = flag_of(limit.name)
                raise ValueError(f"{flag} must be a share from 0 to 1 (0.01 is one point), but got {value}")

    def targets(self) -> list[Target]:
        """Return the files to make. Raises ValueError for contradicting options."""
        names, kind = self._formats(get_args(ExportName), ("int8", "fp16", "softmax"))
        if self.integer_io and not self.int8:
            raise ValueError("--integer-io must be used with --int8, but got it alone")
        return [
            Target(format=name, kind=kind, softmax=self.softmax, integer_io=self.integer_io)  # type: ignore[arg-type]
            for name in names
        ]

    def tolerance(self, kind: Kind) -> Tolerance:
        """Return the tolerance for files of this kind."""
        limits = {limit.name: getattr(self, limit.name) for limit in dataclasses.fields(Tolerance)}
        return dataclasses.replace(TOLERANCES[kind], **{name: v for name, v in limits.items() if v != "auto"})
