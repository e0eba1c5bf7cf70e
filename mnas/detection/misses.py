"""The images on which a detector errs most, as one picture: objects that it missed, and things that are none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from mnas.boxes import ious
from mnas.data.detection.record import BoxedImage
from mnas.detection.detections import ImageDetections
from mnas.detection.draw import TRUE, WRONG, Colour, with_boxes, with_longer_side

CERTAIN = 0.3
"""Score from which a detection is drawn and can find an object."""
_IOU = 0.5
_COLUMNS = 3
SIDE = 480
"""Longer side of the picture of one image, in pixels."""
_GAP = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class Misses:
    """The errors of a detector in one image."""

    image: BoxedImage
    missed: npt.NDArray[np.bool_]
    """(N,): whether no detection of the right class overlaps the object with IoU .5 or more; False for a crowd."""
    wrong: npt.NDArray[np.bool_]
    """(M,): whether a detection finds no object that a more certain one has not found, and no crowd."""
    detections: ImageDetections

    @property
    def errors(self) -> int:
        return int(self.missed.sum() + self.wrong.sum())


def misses_of(image: BoxedImage, detections: ImageDetections) -> Misses:
    """Match the detections of at least `CERTAIN`, the most certain first, with the objects of their class."""
    certain = detections.above(CERTAIN)
    overlaps = ious(certain.boxes, image.boxes)
    free = ~image.crowd
    wrong = np.ones(len(certain), bool)
    for row in range(len(certain)):
        right_class = image.labels == certain.labels[row]
        if (right_class & image.crowd & (overlaps[row] >= _IOU)).any():
            wrong[row] = False
        candidates = np.where(right_class & free, overlaps[row], -1)
        if len(candidates) and candidates.max() >= _IOU:
            free[candidates.argmax()] = False
            wrong[row] = False
    return Misses(image=image, missed=free, wrong=wrong, detections=certain)


def worst_misses(images: Sequence[BoxedImage], results: Mapping[int, ImageDetections], count: int = 9) -> list[Misses]:
    """Return the images with the most errors, at most `count`, the worst first."""
    return worst_of(all_misses(images, results), count)


def all_misses(images: Sequence[BoxedImage], results: Mapping[int, ImageDetections]) -> list[Misses]:
    """Return the errors in each image that has an entry in `results`."""
    return [misses_of(image, results[image.image_id]) for image in images if image.image_id in results]


def worst_of(every: Sequence[Misses], count: int) -> list[Misses]:
    """Return those with the most errors, at most `count`, the worst first."""
    return sorted([misses for misses in every if misses.errors], key=lambda misses: -misses.errors)[:count]


def misses_picture(misses: Sequence[Misses], pictures: Sequence[Image.Image], classes: Sequence[str]) -> Image.Image:
    """Return one picture of all: missed objects and wrong detections in red, found objects in green.

    Args:
        misses: one or more.
        pictures: the images, upright, RGB, of any size.
    """
    cells = [miss_picture(each, picture, classes) for each, picture in zip(misses, pictures, strict=True)]
    columns = min(_COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    height = max(cell.height for cell in cells)
    sheet = Image.new("RGB", (columns * (SIDE + _GAP) - _GAP, rows * (height + _GAP) - _GAP), (255, 255, 255))
    for place, cell in enumerate(cells):
        sheet.paste(cell, (place % columns * (SIDE + _GAP), place // columns * (height + _GAP)))
    return sheet


def miss_picture(misses: Misses, picture: Image.Image, classes: Sequence[str]) -> Image.Image:
    """Return the picture of one image (RGB, of any size), with a longer side of `SIDE`, as `misses_picture`."""
    image, detections = misses.image, misses.detections
    scale = SIDE / max(image.width, image.height)
    texts: list[str] = []
    colours: list[Colour] = []
    for label, missed, crowd in zip(image.labels, misses.missed, image.crowd, strict=True):
        texts.append(f"missed {classes[label]}" if missed else "")
        colours.append(WRONG if missed else TRUE)
        if crowd:
            texts[-1] = "crowd"
    wrong = misses.wrong
    for label, score in zip(detections.labels[wrong], detections.scores[wrong], strict=True):
        texts.append(f"{classes[label]} {score:.0%}?")
        colours.append(WRONG)
    boxes = np.concatenate([image.boxes, detections.boxes[wrong]]) * np.float32(scale)
    return with_boxes(with_longer_side(picture, SIDE), boxes, texts, colours)
