"""Score a detector of any file on images with boxes that it was not trained on, unless the user asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mnas.data.batches import Part
from mnas.data.cache import OnProgress
from mnas.data.detection.batches import BoxBatches, open_box_batches
from mnas.data.detection.load import load_detection
from mnas.data.detection.record import BoxedImage, DetectionData
from mnas.data.held_out import Offered, Selection, Wanted, select
from mnas.data.image import Pixels
from mnas.data.split import shuffled
from mnas.detection.coco import DetectionScores
from mnas.detection.detections import ImageDetections
from mnas.detection.exported import Shares
from mnas.detection.files import OpenDetector
from mnas.detection.score import Detect, score_detector
from mnas.detector import DetectorMetadata
from mnas.folders import user_cache_dir
from mnas.labels import shown
from mnas.require import require_choice, require_int

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


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationImages:
    """The images of a folder that a detector is scored on."""

    data: DetectionData
    """The folder, with its split as in the training."""
    selection: Selection
    batches: BoxBatches
    """The selected images, as the part `test`."""
    outputs: npt.NDArray[np.int64]
    """Class of the data for each class of the detector; -1 for one that the data does not have."""

    def evaluated(self, detect: Detect) -> Evaluated:
        """Score a detector. Raises ImportError without faster-coco-eval, ValueError where the images show no object."""

        def in_data_classes(pixels: Pixels) -> list[Shares]:
            return [_in_classes(shares, self.outputs) for shares in detect(pixels)]

        data, images = self.data, self.batches.images("test")
        batches = self.batches.scoring("test", _BATCH)
        scores, results = score_detector(in_data_classes, batches, images, data.classes, data.category_ids)
        return Evaluated(scores=scores, data=data, selection=self.selection, images=images, results=results)


def open_evaluation(
    metadata: DetectorMetadata,
    folder: str,
    *,
    part: Wanted = "auto",
    seed: int | None = None,
    most: int = 0,
    offers_all: bool = True,
    on_progress: OnProgress | None = None,
) -> EvaluationImages:
    """Return the images of a folder to score a detector on.

    Args:
        metadata: metadata of the detector's file.
        part: see `mnas.data.held_out.select`.
        seed: seed of the split; None: the training's.
        most: largest number of images, chosen at random but always alike; 0: all.
        offers_all: whether the command has `--part`; see `select`.

    Raises:
        ValueError: the images cannot be used, have no such part, or have a class that the detector does not know.
    """
    require_choice("--part", part, ("train", "val", "test", "auto", "all"))
    if seed is not None:
        require_int("--seed", seed, 0, 2**63 - 1)
    data = load_detection(folder, seed=seed or 0, needs_train=False, on_progress=on_progress)
    outputs = _classes_of(metadata, data)
    selection = select(part, seed, _offered(data), metadata.trained_on, ours=True, offers_all=offers_all)
    if selection.seed is not None and selection.seed != data.seed:
        data = load_detection(folder, seed=selection.seed, needs_train=False, on_progress=on_progress)
    batches = open_box_batches(
        _only(data, selection, most), input_size=metadata.detector.input_size, augmentation="none", mirror="no",
        seed=0, workers=0, on_progress=on_progress,
    )  # fmt: skip
    return EvaluationImages(data=data, selection=selection, batches=batches, outputs=outputs)


def evaluate_detector(
    detector: OpenDetector,
    folder: str,
    *,
    part: Wanted = "auto",
    seed: int | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluated:
    """Score a detector on the images of a folder; arguments and errors as of `open_evaluation` and `evaluated`."""
    images = open_evaluation(detector.metadata, folder, part=part, seed=seed, on_progress=on_progress)
    return images.evaluated(detector.detect)


def _offered(data: DetectionData) -> Offered:
    """Return the data as it is before validation images are drawn."""
    counts: dict[Part, int] = {part: len(images) for part, images in data.parts.items()}
    if data.held_out:
        counts["train"] += counts.pop("val")
    return Offered(name=data.name, digest=lambda: data.content(user_cache_dir()), by_stat=data.by_stat, counts=counts)


def _only(data: DetectionData, selection: Selection, most: int) -> DetectionData:
    """Return only the selected images, as the part `test`, whose order is fixed."""
    parts = data.parts if selection.part == "all" else selection.parts  # with the images that are held out
    images = [image for part in parts for image in data.parts.get(part, ())]
    if 0 < most < len(images):
        images = [images[place] for place in sorted(shuffled(range(len(images)), 0)[:most])]
    if len({image.image_id for image in images}) < len(images):  # of several parts
        images = [replace(image, image_id=number) for number, image in enumerate(images, 1)]
    return replace(data, train=(), val=(), test=tuple(images), held_out=False)


def _classes_of(metadata: DetectorMetadata, data: DetectionData) -> npt.NDArray[np.int64]:
    """Return the class of the data for each class of the detector; -1 for one that the data does not have."""
    missing = [name for name in data.classes if name not in metadata.classes]
    if missing:
        raise ValueError(
            f"the detector must know the classes of the images, but it does not know {shown(missing[0])}"
            f"{f' and {len(missing) - 1} others' if len(missing) > 1 else ''}; its classes are "
            f"{', '.join(shown(name) for name in metadata.classes[:10])}"
        )
    return np.array([data.classes.index(n) if n in data.classes else -1 for n in metadata.classes])


def _in_classes(shares: Shares, outputs: npt.NDArray[np.int64]) -> Shares:
    boxes, scores, labels = shares
    mapped = outputs[labels]
    chosen = mapped >= 0
    return boxes[chosen], scores[chosen], mapped[chosen]
