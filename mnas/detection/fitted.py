"""Default boxes that fit a data set: few shapes that match nearly all boxes of every class at their places.

SSDLite's default boxes begin at a fifth of the image's side, so that small objects match none and cannot be learnt.
The shapes here are a greedy cover: the next one matches most of the boxes that no chosen shape matches, for its cost,
in classes that are short of 95 %. Then each shape moves to the median of its boxes. Every box also counts at three
places near its own, so that the shapes do not depend on how a training box happens to lie on the grid.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mnas.boxes import MATCH_IOU
from mnas.data.detection.record import BoxedImage
from mnas.detector import BoxShape, DefaultBoxes, map_sides, paper_boxes

BoxRule = Literal["fitted", "paper"]
"""fitted: shapes and maps chosen from the training boxes. paper: those of SSDLite."""

TARGET = 0.95
"""Share of every class's boxes to match."""
_EXTRA_MAPS = 4
_MOST_SHAPES = 6
_MOST_AT_STRIDE_8 = 3  # a map with four times the pixels of the next one
_MOST_BOXES = 8000
_SMALLEST_PX = 4.0
_STEP = 1.26  # ratio of neighbouring sides, whose boxes overlap by .63 or more
_MOST_ASPECT = 5.0
_LEAST_CELLS = 0.8  # side of a shape in cells of its map; smaller ones match by chance
_LEAST_GAIN = 0.01  # sum over classes of the share that a shape must add
_STRIDE_8_GAIN = 0.02  # share of a class that the map of output stride 8 must add
_SHIFTS = ((0.0, 0.0), (0.37, -0.21), (-0.29, 0.43), (-0.45, -0.38))  # in cells of output stride 16
_ROUNDS = 2
_FIXED_COST = 25.0  # of any shape, in pixels of a map

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class _Shape:
    """A default box on one of the maps."""

    place: int
    """Place of the map among all seven; 0: that of output stride 8."""
    side: int
    """Side of the map in pixels."""
    width: float
    height: float

    @property
    def cost(self) -> float:
        """Cost that a gain is divided by: it grows less than the number of boxes, which head and decoding pay for."""
        return float((self.side**2 + _FIXED_COST) ** 0.5)


class _Sample:
    """Boxes at their places and near them."""

    def __init__(
        self, boxes: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], num_classes: int, input_size: int
    ) -> None:
        sizes = boxes[:, 2:] - boxes[:, :2]
        shifts = np.array(_SHIFTS) * 16 / input_size
        low = np.concatenate([np.clip(boxes[:, :2] + shift, 0, 1 - sizes) for shift in shifts])
        self.sizes = np.tile(sizes, (len(_SHIFTS), 1))
        self.centres = np.clip(low + self.sizes / 2, 0, 1 - 1e-9)
        self.labels = np.tile(labels, len(_SHIFTS))
        self.own = len(boxes)
        """Number of boxes at their own places, which come first."""
        self._counts = np.maximum(1, np.bincount(labels, minlength=num_classes))
        self.present = np.bincount(labels, minlength=num_classes) > 0

    def iou(self, shape: _Shape) -> Floats:
        """Return the intersection over union of each box with the nearest default box of a shape."""
        return _nearest_iou(self.centres, self.sizes, shape.side, (shape.width, shape.height))

    def shares(self, covered: npt.NDArray[np.bool_]) -> Floats:
        """Return the covered share of each class: the lower of that at the boxes' own places and at all places."""
        classes = len(self._counts)
        own = np.bincount(self.labels[: self.own], covered[: self.own], classes) / self._counts
        every = np.bincount(self.labels, covered, classes) / (self._counts * len(_SHIFTS))
        return np.where(self.present, np.minimum(own, every), 1.0)


def _nearest_iou(centres: Floats, sizes: Floats, side: int, shape: BoxShape) -> Floats:
    """Return the intersection over union (N,) of boxes with the default box of a shape whose centre is nearest."""
    sides = np.array(shape)
    nearest = (np.floor(centres * side) + 0.5) / side
    common = np.minimum((sizes + sides) / 2 - np.abs(centres - nearest), np.minimum(sizes, sides))
    shared = np.maximum(common, 0).prod(1)
    result: Floats = shared / (sizes.prod(1) + sides.prod() - shared)
    return result


def matched_by(
    boxes: npt.NDArray[np.float32], default_boxes: DefaultBoxes, sides: Sequence[int]
) -> npt.NDArray[np.bool_]:
    """Return what `mnas.boxes.matched` returns for all default boxes on maps of these sides, in a fraction of the time.

    Of all default boxes of a shape, the one whose centre is nearest overlaps a box most.

    Args:
        boxes: left, top, right and bottom (N, 4), as shares of the image.
    """
    sizes = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    centres = np.clip((boxes[:, :2].astype(np.float64) + boxes[:, 2:]) / 2, 0, 1 - 1e-9)
    result = np.zeros(len(boxes), bool)
    for side, shapes in zip(sides, default_boxes.shapes, strict=True):
        for shape in shapes:
            result |= _nearest_iou(centres, sizes, side, shape) >= MATCH_IOU
    return result


def fitted_boxes(images: Sequence[BoxedImage], num_classes: int, input_size: int) -> DefaultBoxes:
    """Return default boxes that match at least 95 % of each class's boxes, as far as a detector can reach them.

    Each of the six maps of a detector has at most six shapes. A map of output stride 8, with at most three, is added if
    a class needs it.

    Args:
        images: training images; crowds do not count.
        input_size: side of the detector's input in pixels; images are resized to this square.

    Raises:
        ValueError: there are no boxes.
    """
    boxes, labels = box_shares(images)
    if not len(boxes):
        raise ValueError("the training images must have boxes to fit default boxes to, but they have none")
    chosen = _spread(labels)
    sample = _Sample(boxes[chosen], labels[chosen], num_classes, input_size)
    sides = map_sides(input_size, _EXTRA_MAPS + 3)
    coarse = _Candidates(sample, [shape for shape in _shapes(sides, input_size) if shape.place])
    shapes = _fitted(sample, coarse)
    shares = sample.shares(_covered(sample, shapes))
    if (shares < TARGET).any():
        fine = _Candidates(sample, [shape for shape in _shapes(sides, input_size) if not shape.place])
        finer = _fitted(sample, coarse.joined(fine))
        gains = sample.shares(_covered(sample, finer)) - shares
        if (gains[shares < TARGET] >= _STRIDE_8_GAIN).any():
            return _default_boxes(finer, range(_EXTRA_MAPS + 3))
    return _default_boxes(shapes, range(1, _EXTRA_MAPS + 3))


def box_shares(images: Sequence[BoxedImage]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return all boxes (N, 4) that are no crowds as shares of their images, and their labels (N,)."""
    sides = [np.array([image.width, image.height] * 2, np.float32) for image in images]
    boxes = [(image.boxes / side)[~image.crowd] for image, side in zip(images, sides, strict=True)]
    labels = [image.labels[~image.crowd] for image in images]
    return np.concatenate([*boxes, np.zeros((0, 4), np.float32)]), np.concatenate([*labels, np.zeros(0, np.int64)])


def _spread(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the places of at most about 8,000 boxes: all of a rare class, and an even choice of a frequent one."""
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    most = max(1, _MOST_BOXES // len(groups))
    return np.concatenate([group[:: -(-len(group) // most)] for group in groups])


class _Candidates:
    """Shapes to choose from, and which boxes each of them matches."""

    def __init__(self, sample: _Sample, shapes: Sequence[_Shape], hits: npt.NDArray[np.bool_] | None = None) -> None:
        self.sample, self.shapes = sample, list(shapes)
        self.hits = np.stack([sample.iou(shape) >= MATCH_IOU for shape in shapes]) if hits is None else hits

    def joined(self, others: "_Candidates") -> "_Candidates":
        """Return these and other shapes."""
        hits = np.concatenate([self.hits, others.hits])
        return _Candidates(self.sample, [*self.shapes, *others.shapes], hits)


def _shapes(sides: Sequence[int], input_size: int) -> list[_Shape]:
    """Return shapes of many sizes and aspect ratios for each map whose cells are not much larger."""
    count = int(np.log(input_size / _SMALLEST_PX) / np.log(_STEP)) + 1
    lengths = [1 / _STEP**number for number in range(count)]
    return [
        _Shape(place, side, width, height)
        for place, side in enumerate(sides)
        for width, height in itertools.product(lengths, lengths)
        if 1 / _MOST_ASPECT <= width / height <= _MOST_ASPECT and (width * height) ** 0.5 * side >= _LEAST_CELLS
    ]


def _fitted(sample: _Sample, candidates: _Candidates) -> list[_Shape]:
    shapes = _without_spare(sample, _cover(sample, candidates))
    for _ in range(_ROUNDS):
        shapes = _at_medians(sample, shapes)
    return shapes


def _cover(sample: _Sample, candidates: _Candidates) -> list[_Shape]:
    """Return shapes that cover the target of each class, the most useful first; fewer if no candidate helps."""
    hits = candidates.hits
    weights = 1 / np.maximum(1, np.bincount(sample.labels))[sample.labels]
    costs = np.array([shape.cost for shape in candidates.shapes])
    places = np.array([shape.place for shape in candidates.shapes])
    most = np.array([_MOST_AT_STRIDE_8, *[_MOST_SHAPES] * (_EXTRA_MAPS + 2)])
    chosen: list[int] = []
    covered = np.zeros(len(sample.labels), bool)
    while True:
        wanted = ~covered & (sample.shares(covered) < TARGET)[sample.labels]
        gains = hits[:, wanted] @ weights[wanted]
        used = np.bincount(places[chosen], minlength=len(most))
        allowed = (used < most)[places] & (gains >= _LEAST_GAIN)
        if not allowed.any():
            return [candidates.shapes[index] for index in chosen]
        # Rounded, so that sums in another order choose the same shape on every machine.
        best = int(np.round(np.where(allowed, gains / costs, -1), 9).argmax())
        chosen.append(best)
        covered |= hits[best]


def _covered(sample: _Sample, shapes: Sequence[_Shape]) -> npt.NDArray[np.bool_]:
    covered = np.zeros(len(sample.labels), bool)
    for shape in shapes:
        covered |= sample.iou(shape) >= MATCH_IOU
    return covered


def _is_enough(sample: _Sample, shapes: Sequence[_Shape], before: Floats) -> bool:
    """Return whether each class keeps its covered share, or the target."""
    return bool((sample.shares(_covered(sample, shapes)) >= np.minimum(before, TARGET) - 1e-9).all())


def _without_spare(sample: _Sample, shapes: list[_Shape]) -> list[_Shape]:
    """Return the shapes without those that later ones made superfluous, the most expensive first."""
    before = sample.shares(_covered(sample, shapes))
    for shape in sorted(shapes, key=lambda shape: -shape.side):
        rest = [other for other in shapes if other is not shape]
        if rest and _is_enough(sample, rest, before):
            shapes = rest
    return shapes


def _at_medians(sample: _Sample, shapes: list[_Shape]) -> list[_Shape]:
    """Return the shapes, each with the median sides of the boxes that overlap it most, if no class loses by that."""
    if not shapes:
        return shapes
    before = sample.shares(_covered(sample, shapes))
    nearest = np.stack([sample.iou(shape) for shape in shapes]).argmax(0)
    for number, shape in enumerate(shapes):
        members = sample.sizes[nearest == number]
        if not len(members):
            continue
        width, height = np.round(np.median(members, axis=0), 6).tolist()
        moved = [*shapes[:number], _Shape(shape.place, shape.side, width, height), *shapes[number + 1 :]]
        if _is_enough(sample, moved, before):
            shapes = moved
    return shapes


def _default_boxes(shapes: Sequence[_Shape], places: range) -> DefaultBoxes:
    """Return the default boxes; a map without a shape gets a square of the paper's scale."""
    squares = [of_map[0] for of_map in paper_boxes(len(places), reduced=False).shapes]
    by_map: list[tuple[BoxShape, ...]] = []
    for place, square in zip(places, squares, strict=True):
        sides = {(shape.width, shape.height) for shape in shapes if shape.place == place}
        by_map.append(tuple(sorted(sides)) or (square,))
    return DefaultBoxes(shapes=tuple(by_map))
