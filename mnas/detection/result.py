"""The result of a detector's training: `result.json` in its folder."""

from dataclasses import dataclass
from pathlib import Path

from mnas.train.folder import FinishedTraining, read_finished


@dataclass(frozen=True, kw_only=True)
class TrainedDetector(FinishedTraining):
    """A finished training of a detector."""

    mean_precision: float
    """COCO's mAP of these weights on the validation images."""
    ap50: float
    """Average precision at IoU .5 on the validation images."""
    test_precision: float | None
    """COCO's mAP on the test images, which nothing else uses; None if the data has none."""
    test_ap50: float | None
    """Average precision at IoU .5 on the test images."""


def read_detector_result(folder: Path) -> TrainedDetector | None:
    """Return the finished training in `folder`; None if it is not finished. Raises ValueError for a damaged result."""
    return read_finished(folder, TrainedDetector, "mean_precision", "a detector's training")
