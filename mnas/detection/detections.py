"""The detections in one image, and their form in COCO's results."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageDetections:
    """The detections in one image, the most certain first."""

    boxes: npt.NDArray[np.float32]
    """Boxes (N, 4): left, top, right and bottom, in pixels of the image."""
    scores: npt.NDArray[np.float32]
    """Probabilities (N,) of the classes."""
    labels: npt.NDArray[np.int64]
    """Classes (N,), from 0."""
    width: int
    """Width of the image in pixels."""
    height: int

    def __post_init__(self) -> None:
        count = len(self.scores)
        assert self.boxes.shape == (count, 4)
        assert self.labels.shape == (count,)

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> "ImageDetections":
        """Return those with at least this score."""
        chosen = self.scores >= threshold
        return replace(self, boxes=self.boxes[chosen], scores=self.scores[chosen], labels=self.labels[chosen])


def coco_results(image_id: int, detections: ImageDetections, category_ids: tuple[int, ...]) -> list[dict[str, object]]:
    """Return the detections as entries of COCO's results file (a list of these is what its evaluation takes).

    Args:
        category_ids: COCO's id of each class.
    """
    corners = detections.boxes.astype(float)
    sizes = corners[:, 2:] - corners[:, :2]
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [round(value, 2) for value in (*corner[:2], *size)],
            "score": round(float(score), 5),
        }
        for corner, size, score, label in zip(corners, sizes, detections.scores, detections.labels, strict=True)
    ]
