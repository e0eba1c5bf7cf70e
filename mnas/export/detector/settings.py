"""Settings of `mnas detect export`: the detector, the files to write, their rules for boxes, and their tolerances."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from mnas.detector import Suppression
from mnas.export.detector.tolerance import DETECTOR_TOLERANCES, DetectorTolerance
from mnas.export.target import Kind, Target
from mnas.require import flag_of, require_int, require_number

Auto = Literal["auto"]
DetectorFormat = Literal["litert", "onnx"]


@dataclass(frozen=True, kw_only=True)
class DetectExportSettings:
    """Settings of an export. Raises ValueError where a field is out of its range, or fields contradict each other."""

    model: str = field(kw_only=False)
    """Weights file (.safetensors) of mnas detect train, or folder of a training."""
    to: str
    """Formats to export to, separated by commas: litert, onnx."""
    postprocess: bool = False
    """Select boxes inside the file, which then gives only the best ones. LiteRT files do so by the operator
    TFLite_Detection_PostProcess, with the metadata that MediaPipe's ObjectDetector requires."""
    score_threshold: float = Suppression.score_threshold
    """With --postprocess, lowest score of a box, from 0 to 1. An app can require a higher one."""
    nms_iou: float = Suppression.nms_iou
    """With --postprocess, overlap (intersection over union) with a better box of the same class above which a box is
    dropped."""
    most: int = Suppression.most
    """With --postprocess, largest number of boxes for an image."""
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
    """Folder of images with boxes that the detector was trained on: mnas compares the mAP of file and network on its
    validation images. Without it, mnas compares the boxes in crops of two photographs of scikit-learn."""
    calibration_images: int = 200
    """Number of training images on which --int8 calibrates the ranges of activations."""
    images: int = 1000
    """Largest number of validation images on which to compare the file with the network; 0: all."""
    seed: int | Auto = "auto"
    """Seed of the split of data without validation images; auto: that of the training."""

    min_agreement: float | Auto = "auto"
    """Smallest accepted share of objects that both file and network find; auto: 0.99, 0.9 with --fp16, any share with
    --int8."""
    max_precision_loss: float | Auto = "auto"
    """Largest accepted loss of mAP, from 0 to 1; auto: 0.001, 0.01 with --int8."""
    speed_s: float = 3.0
    """Time for measuring the latency of each file, in seconds; 0: do not measure."""

    def __post_init__(self) -> None:
        targets = self.targets()  # raises its errors before any work
        if self.int8 and self.data is None:
            raise ValueError(
                "--int8 needs --data for images to calibrate on, but got none; give the folder of the training"
            )
        if len(targets) > 1 and self.out is not None and not self.out.is_dir():
            raise ValueError(f"--out must be an existing folder for several files, but got {str(self.out)!r}")
        require_int("--calibration-images", self.calibration_images, 1)
        require_int("--images", self.images, 0)
        if self.seed != "auto":
            require_int("--seed", self.seed, 0, 2**63 - 1)
        for name in ("min_agreement", "max_precision_loss"):
            if getattr(self, name) != "auto":
                require_number(flag_of(name), getattr(self, name), 0, 1)
        if not 0 <= self.speed_s < math.inf:
            raise ValueError(f"--speed-s must be 0 (not measured) or more, but got {self.speed_s}")
        for name in ("score_threshold", "nms_iou", "most"):
            if getattr(self, name) != getattr(Suppression, name) and not self.postprocess:
                raise ValueError(f"{flag_of(name)} must be used with --postprocess, but got it alone")
        self.suppression()

    def suppression(self) -> Suppression | None:
        """Return the rules by which files select boxes; None: they give all boxes. Raises ValueError."""
        if not self.postprocess:
            return None
        try:
            return Suppression(score_threshold=self.score_threshold, nms_iou=self.nms_iou, most=self.most)
        except ValueError as error:
            name, _, rest = str(error).partition(" ")
            raise ValueError(f"{flag_of(name)} {rest}") from None

    def targets(self) -> list[Target]:
        """Return the files to make. Raises ValueError for contradicting options."""
        names = list(dict.fromkeys(name.strip() for name in self.to.split(",")))
        for name in names:
            if name not in get_args(DetectorFormat):
                raise ValueError(f"--to must be one or more of {', '.join(get_args(DetectorFormat))}, but got {name!r}")
        if self.int8 and self.fp16:
            raise ValueError("--int8 and --fp16 must not be used together, but got both; export twice")
        for option in ("int8", "fp16"):
            if getattr(self, option) and names != ["litert"]:
                raise ValueError(
                    f"--{option} must be used with --to litert alone, but got --to {self.to}; export twice"
                )
        kind: Kind = "int8" if self.int8 else "fp16" if self.fp16 else "fp32"
        return [Target(format=name, kind=kind) for name in names]  # type: ignore[arg-type]

    def tolerance(self, kind: Kind) -> DetectorTolerance:
        """Return the tolerance for files of this kind."""
        limits = {name: getattr(self, name) for name in ("min_agreement", "max_precision_loss")}
        given = {name: value for name, value in limits.items() if value != "auto"}
        return dataclasses.replace(DETECTOR_TOLERANCES[kind], **given)
