"""Settings of `mnas detect export`: the detector, the files to write, their rules for boxes, and their tolerances."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal, get_args

from mnas.detector import Suppression
from mnas.export.detector.tolerance import DETECTOR_TOLERANCES, DetectorTolerance
from mnas.export.options import Auto, ExportOptions
from mnas.export.target import Kind, Target
from mnas.require import flag_of, require_number

DetectorFormat = Literal["litert", "onnx"]


@dataclass(frozen=True, kw_only=True)
class DetectExportSettings(ExportOptions):
    """Settings of a detector's export. Raises ValueError for fields out of range or in contradiction."""

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
    data: str | None = None
    """Folder of images with boxes that the detector was trained on: mnas compares the mAP of file and network on its
    validation images. Without it, mnas compares the boxes in crops of two photographs of scikit-learn."""
    min_agreement: float | Auto = "auto"
    """Smallest accepted share of objects that both file and network find; auto: 0.99, 0.9 with --fp16, any share with
    --int8."""
    max_precision_loss: float | Auto = "auto"
    """Largest accepted loss of mAP, from 0 to 1; auto: 0.001, 0.01 with --int8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("min_agreement", "max_precision_loss"):
            if getattr(self, name) != "auto":
                require_number(flag_of(name), getattr(self, name), 0, 1)
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
        names, kind = self._formats(get_args(DetectorFormat), ("int8", "fp16"))
        return [Target(format=name, kind=kind) for name in names]  # type: ignore[arg-type]

    def tolerance(self, kind: Kind) -> DetectorTolerance:
        """Return the tolerance for files of this kind."""
        limits = {name: getattr(self, name) for name in ("min_agreement", "max_precision_loss")}
        given = {name: value for name, value in limits.items() if value != "auto"}
        return dataclasses.replace(DETECTOR_TOLERANCES[kind], **given)
