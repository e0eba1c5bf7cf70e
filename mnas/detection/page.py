"""The page of a finished training of a detector, `report.html`: curves, classes, worst misses and training images."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mnas.atomic import write_atomic
from mnas.data.detection.batches import BoxBatches
from mnas.data.detection.record import BoxedImage, DetectionData, DetectionPart
from mnas.data.image import UnreadableImage
from mnas.data.split import shuffled
from mnas.detection.coco import DetectionScores
from mnas.detection.detections import ImageDetections
from mnas.detection.draw import colour_of, with_boxes, with_longer_side
from mnas.detection.metrics import DetectionMetrics
from mnas.detection.misses import CERTAIN, SIDE, Misses, all_misses, miss_picture, worst_of
from mnas.pages.detected import BoxedPicture, DetectedClass, DetectedModel, detected_page
from mnas.pages.gallery import data_uri
from mnas.predict.images import read_picture
from mnas.text import counted
from mnas.train.folder import PAGE_NAME

Numbers = npt.NDArray[np.int64]
_SAMPLES = 12
_MISSES = 12


def write_detector_page(
    folder: Path,
    rows: Sequence[DetectionMetrics],
    batches: BoxBatches,
    part: DetectionPart,
    scores: DetectionScores,
    results: Mapping[int, ImageDetections],
) -> None:
    """Write the page of a training to its folder, whose name is the title. Raises OSError.

    Args:
        rows: metrics of all epochs, of which the last one is scored.
        part: part whose scores and misses the page shows.
        scores: metrics on its images.
        results: image id -> detections in its images.
    """
    data, size = batches.data, batches.input_size
    misses = all_misses(batches.images(part), results)
    scored = [row for row in rows if not math.isnan(row.val_precision)]
    model = DetectedModel(
        title=folder.name,
        part=f"{'validation' if part == 'val' else part} part of {data.name}",
        facts=[
            f"{size}×{size} px",
            f"{len(data.classes):,} class{'es' * (len(data.classes) != 1)}",
            f"trained on {counted(len(data.train), 'image')}, {counted(len(rows), 'epoch')}",
        ],
        figures=_figures(scores, misses),
        losses=[(row.epoch, row.train_loss) for row in rows],
        precisions=[(row.epoch, row.val_precision) for row in scored],
        ap50s=[(row.epoch, row.val_ap50) for row in scored],
        classes=_classes(data, scores, misses),
        certain=CERTAIN,
        misses=_worst(misses, data.classes),
        samples=_samples(data),
    )
    write_atomic(folder / PAGE_NAME, detected_page(model))


def _figures(scores: DetectionScores, misses: Sequence[Misses]) -> list[tuple[str, str]]:
    shares = [
        (scores.mean_precision, "mAP: mean over classes and IoUs .5 to .95"),
        (scores.ap50, "AP50: at IoU .5"),
        (scores.ap75, "AP75: at IoU .75"),
        (scores.small, "mAP of objects below 32×32 px"),
        (scores.medium, "mAP of objects up to 96×96 px"),
        (scores.large, "mAP of larger objects"),
    ]
    missed = sum(int(one.missed.sum()) for one in misses)
    wrong = sum(int(one.wrong.sum()) for one in misses)
    return [
        *((f"{share:.1%}", meaning) for share, meaning in shares if share is not None),
        (f"{missed:,} of {scores.objects:,}", f"objects missed at score {CERTAIN:g}"),
        (f"{wrong:,}", f"wrong detections at score {CERTAIN:g}"),
        (f"{scores.images:,}", "images"),
    ]


def _classes(data: DetectionData, scores: DetectionScores, misses: Sequence[Misses]) -> list[DetectedClass]:
    none = np.zeros(0, np.int64)

    def counts(labels: Sequence[Numbers]) -> Numbers:
        return np.bincount(np.concatenate([none, *labels]), minlength=len(data.classes))

    training = counts([image.labels[~image.crowd] for image in data.train])
    objects = counts([one.image.labels[~one.image.crowd] for one in misses])
    missed = counts([one.image.labels[one.missed] for one in misses])
    wrong = counts([one.detections.labels[one.wrong] for one in misses])
    return [
        DetectedClass(
            name=name,
            training_objects=int(training[label]),
            objects=int(objects[label]),
            mean_precision=None if of_class is None else of_class.mean_precision,
            ap50=None if of_class is None else of_class.ap50,
            missed=int(missed[label]),
            wrong=int(wrong[label]),
        )
        for label, (name, of_class) in enumerate(scores.classes.items())
    ]


def _worst(misses: Sequence[Misses], classes: Sequence[str]) -> list[BoxedPicture]:
    pictures = []
    for one in worst_of(misses, _MISSES):
        if (picture := _read(one.image)) is not None:
            note = f"{int(one.missed.sum())} missed, {int(one.wrong.sum())} wrong"
            pictures.append(_boxed(one.image, note, miss_picture(one, picture, classes)))
    return pictures


def _samples(data: DetectionData) -> list[BoxedPicture]:
    """Return training images with boxes, chosen at random but always alike."""
    pictures = []
    for image in shuffled([image for image in data.train if len(image.boxes)], 0)[:_SAMPLES]:
        if (picture := _read(image)) is not None:
            labels = image.labels.tolist()
            names = np.where(image.crowd, "crowd", np.array(data.classes)[labels]).tolist()
            boxes = image.boxes * np.float32(SIDE / max(image.width, image.height))
            drawn = with_boxes(with_longer_side(picture, SIDE), boxes, names, [colour_of(label) for label in labels])
            pictures.append(_boxed(image, f"{len(labels)} box{'es' * (len(labels) != 1)}", drawn))
    return pictures


def _read(image: BoxedImage) -> Image.Image | None:
    """Return an image; None if it is not readable, which other lines report."""
    try:
        return read_picture(str(image.path), SIDE)
    except (UnreadableImage, OSError):
        return None


def _boxed(image: BoxedImage, note: str, picture: Image.Image) -> BoxedPicture:
    return BoxedPicture(name=image.name, note=note, picture=data_uri(picture))
