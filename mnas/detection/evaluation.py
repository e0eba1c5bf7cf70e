"""Score a detector of any file on images with boxes that it was not trained on, unless the user asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mnas.data.batches import Part
from mnas.data.cache import OnProgress
from mnas.data.detection.batches import open_box_batches
from mnas.data.detection.load import load_detection
from mnas.data.detection.record import BoxedImage, DetectionData
from mnas.data.held_out import Offered, Selection, Wanted, select
from mnas.detection.coco import DetectionScores
from mnas.detection.detections import ImageDetections
from mnas.detection.exported import Shares
from mnas.detection.files import OpenDetector
from mnas.detection.score import score_detector
from mnas.folders import user_cache_dir
from mnas.labels import shown

_BATCH = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluated:
    """A detector's scores on some images."""

    scores: DetectionScores
    data: DetectionData
    selection: Selection
    images: Sequence[BoxedImage]
    results: dict[int, ImageDetections]
    """Image id -> detections, with the classes of the data."""


def evaluate_detector(
    detector: OpenDetector,
    folder: str,
    *,
    part: Wanted = "auto",
    seed: int | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluated:
    """Score a detector on the images of a folder.

    Args:
        part: see `mnas.data.held_out.select`; `all` is not possible.
        seed: seed of the split; None: the training's.

    Raises:
        ImportError: faster-coco-eval is not installed.
        ValueError: the images cannot be used, have no such part, or have a class that the detector does not know.
    """
    data = load_detection(folder, seed=seed or 0, needs_train=False, on_progress=on_progress)
    outputs = _classes_of(detector, data)
    selection = select(part, seed, _offered(data), detector.metadata.trained_on, ours=True)
    if selection.seed is not None and selection.seed != data.seed:
        data = load_detection(folder, seed=selection.seed, needs_train=False, on_progress=on_progress)
    chosen = _only(data, selection)
    metadata = detector.metadata
    batches = open_box_batches(
        chosen, input_size=metadata.detector.input_size, augmentation="none", mirror="no", seed=0, workers=0,
        on_progress=on_progress,
    )  # fmt: skip

    def detect(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> list[Shares]:
        return [_in_classes(shares, outputs) for shares in detector.detect(pixels)]

    images = batches.images("test")
    scores, results = score_detector(detect, batches.scoring("test", _BATCH), images, data.classes, data.category_ids)
    return Evaluated(scores=scores, data=data, selection=selection, images=images, results=results)


def _offered(data: DetectionData) -> Offered:
    """Return the data as it is before validation images are drawn."""
    counts: dict[Part, int] = {part: len(images) for part, images in data.parts.items()}
    if data.held_out:
        counts["train"] += counts.pop("val")
    return Offered(name=data.name, digest=lambda: data.content(user_cache_dir()), by_stat=data.by_stat, counts=counts)


def _only(data: DetectionData, selection: Selection) -> DetectionData:
    """Return only the selected images, as the part `test`, whose order is fixed."""
    images = [image for part in selection.parts for image in data.parts.get(part, ())]
    if len({image.image_id for image in images}) < len(images):  # of several parts
        images = [replace(image, image_id=number) for number, image in enumerate(images, 1)]
    return replace(data, train=(), val=(), test=tuple(images), held_out=False)


def _classes_of(detector: OpenDetector, data: DetectionData) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the class of the data for each class of the detector; -1 for one that the data does not have."""
    missing = [name for name in data.classes if name not in detector.metadata.classes]
    if missing:
        raise ValueError(
            f"the detector must know the classes of the images, but it does not know {shown(missing[0])}"
            f"{f' and {len(missing) - 1} others' if len(missing) > 1 else ''}; its classes are "
            f"{', '.join(shown(name) for name in detector.metadata.classes[:10])}"
        )
    return np.array([data.classes.index(n) if n in data.classes else -1 for n in detector.metadata.classes])


def _in_classes(shares: Shares, outputs: np.ndarray[Any, np.dtype[np.int64]]) -> Shares:
    boxes, scores, labels = shares
    mapped = outputs[labels]
    chosen = mapped >= 0
    return boxes[chosen], scores[chosen], mapped[chosen]
