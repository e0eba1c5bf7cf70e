"""The result of a detector's training: `result.json` in its folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mnas.atomic import write_atomic
from mnas.formats import WEIGHTS_NAME
from mnas.readers import read_json, require_types
from mnas.require import require_number
from mnas.train.folder import PAGE_NAME, RESULT_NAME


@dataclass(frozen=True, kw_only=True)
class TrainedDetector:
    """A finished training of a detector."""

    weights: Path
    mean_precision: float
    """COCO's mAP of these weights on the validation images."""
    ap50: float
    """Average precision at IoU .5 on the validation images."""
    test_precision: float | None
    """COCO's mAP on the test images, which nothing else uses; None if the data has none."""
    test_ap50: float | None
    """Average precision at IoU .5 on the test images."""
    epochs: int
    seconds: float
    """Time of training and scoring, in seconds, without work that a killed process lost."""
    images_per_s: float
    """Training speed, in images per second."""
    waiting: float
    """Share of the training time spent waiting for data."""

    @property
    def report(self) -> Path:
        """Page with the curves, the classes, the worst misses and training images, in the training's folder."""
        return self.weights.with_name(PAGE_NAME)


def write_detector_result(folder: Path, trained: TrainedDetector) -> None:
    """Mark the training as finished. Raises OSError."""
    write_atomic(folder / RESULT_NAME, json.dumps(asdict(trained) | {"weights": trained.weights.name}, indent=1) + "\n")


def read_detector_result(folder: Path) -> TrainedDetector | None:
    """Return the finished training in `folder`; None if it is not finished. Raises ValueError for a damaged result."""
    path = folder / RESULT_NAME
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        require_types(TrainedDetector, values)
        require_number("mean_precision", values["mean_precision"], 0, 1)
        return TrainedDetector(**values | {"weights": folder / WEIGHTS_NAME})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is not the result of a detector's training ({error!r}); remove it, and use --resume to write it "
            "again"
        ) from None
