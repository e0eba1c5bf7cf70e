"""A detector as plain values: a backbone, its head, and the default boxes on each of its maps.

Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016, arXiv:1512.02325), section 2.2; Sandler et al.,
"MobileNetV2" (CVPR 2018, arXiv:1801.04381), section 6.2 (SSDLite); Tan et al., "MnasNet", section 6.3.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.block import MAX_FILTERS
from mnas.labels import label_fault, shown
from mnas.metadata import MOST_CLASSES, Triple, check_mean, check_std
from mnas.require import checked_fields, require_choice, require_int, require_number
from mnas.training_data import TrainedOn, read_trained_on, trained_on_json

Head = Literal["ssdlite"]
HeadOrNone = Literal["none", "ssdlite"]
BoxShape = tuple[float, float]
"""Width and height of a default box, each as a share of the image's side."""

INPUT_SIZE = 320
MOST_INPUT_SIZE = 4096
"""Largest side of a detector's input, in pixels."""
COCO_CLASSES = 80
OUTPUT_STRIDE = 32
_EXTRA_FILTERS = (512, 256, 256, 128)
_MOST_SHAPES = 32
_MOST_OBJECTS = 1000
_LOWEST_SIDE = 0.1


@dataclass(frozen=True, kw_only=True)
class DefaultBoxes:
    """Shapes of the default boxes on each map, from the finest to the coarsest. Raises ValueError if out of range."""

    shapes: tuple[tuple[BoxShape, ...], ...]
    """For each map, the shapes of the boxes at each of its pixels."""

    def __post_init__(self) -> None:
        shapes = tuple(tuple((float(w), float(h)) for w, h in of_map) for of_map in self.shapes)
        object.__setattr__(self, "shapes", shapes)
        for of_map in shapes:
            if not 1 <= len(of_map) <= _MOST_SHAPES:
                raise ValueError(f"a map must have 1 to {_MOST_SHAPES} shapes of boxes, but got {len(of_map)}")
            for side in (side for shape in of_map for side in shape):
                require_number("side of a default box", side, 1e-4, 1)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of boxes at each pixel of each map."""
        return tuple(map(len, self.shapes))

    def boxes(self, sides: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return all default boxes (N, 4): centre x and y, width, height, as shares of the image.

        The order is that of torchvision: maps, rows, columns, shapes.

        Args:
            sides: side of each map in pixels.
        """
        parts = []
        for side, of_map in zip(sides, self.shapes, strict=True):
            centres = (np.arange(side) + 0.5) / side
            y, x, shape = np.meshgrid(centres, centres, np.arange(len(of_map)), indexing="ij")
            sizes = np.array(of_map)[shape.ravel()]
            parts.append(np.concatenate([x.reshape(-1, 1), y.reshape(-1, 1), sizes], axis=1))
        return np.concatenate(parts).astype(np.float32)


def paper_boxes(maps: int = 6, low: float = 0.2, high: float = 0.95, *, reduced: bool = True) -> DefaultBoxes:
    """Return the boxes of SSDLite: scales from `low` to `high`, aspect ratios 1 (twice), 2 and 3, and their inverses.

    Args:
        maps: number of maps, 2 or more.
        reduced: give the finest map three boxes, a square of side 0.1 and ratios 2 and 1/2 of the lowest scale, as in
            tensorflow/models, research/object_detection, with which the papers count; False: six, as in torchvision.
    """
    scales = [low + (high - low) * k / (maps - 1) for k in range(maps)] + [1.0]
    shapes: list[tuple[BoxShape, ...]] = []
    for scale, following in itertools.pairwise(scales):
        between = math.sqrt(scale * following)
        tall = [(scale * math.sqrt(ratio), scale / math.sqrt(ratio)) for ratio in (2, 3)]
        pairs = [(scale, scale), (between, between), *(pair for w, h in tall for pair in ((w, h), (h, w)))]
        if reduced and not shapes:
            pairs = [(_LOWEST_SIDE, _LOWEST_SIDE), *pairs[2:4]]
        shapes.append(tuple((min(1.0, w), min(1.0, h)) for w, h in pairs))
    return DefaultBoxes(shapes=tuple(shapes))


def require_detector_size(input_size: object) -> None:
    """Raise ValueError unless `input_size` is a detector's side in pixels: a multiple of 32 up to 4096."""
    require_int("--input-size", input_size, OUTPUT_STRIDE, MOST_INPUT_SIZE)
    if input_size % OUTPUT_STRIDE:  # type: ignore[operator]
        raise ValueError(f"--input-size must be a multiple of {OUTPUT_STRIDE}, but got {input_size}")


def map_sides(input_size: int, maps: int, extra_maps: int = len(_EXTRA_FILTERS)) -> tuple[int, ...]:
    """Return the side of each map of a detector in pixels, from the finest.

    Args:
        maps: number of maps: the extra ones and two, or three with that of output stride 8.
    """
    sides = [input_size // 8] if maps == extra_maps + 3 else []
    sides += [input_size // 16, input_size // 32]
    for _ in range(extra_maps):
        sides.append(-(-sides[-1] // 2))
    return tuple(sides)


def counted_boxes(counts: Sequence[int]) -> DefaultBoxes:
    """Return boxes of arbitrary shapes, for costs and latencies, which depend only on their numbers.

    Args:
        counts: number of boxes at each pixel of each map, from the finest.
    """
    return DefaultBoxes(shapes=tuple(tuple((0.1 + 0.01 * i, 0.1) for i in range(count)) for count in counts))


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A detector without its number of classes. Raises ValueError if a field is out of range, or the boxes do not fit.

    Its maps are, from the finest: that of output stride 8, if there is one more shape than the others need (the
    expansion of the first layer at output stride 16), that of output stride 16 (the expansion of the first layer at
    output stride 32), the backbone's last features, and the results of the extra layers.
    """

    arch: Arch
    """Backbone, with output stride 32."""
    boxes: DefaultBoxes
    input_size: int = INPUT_SIZE
    """Side of the square input in pixels, a multiple of 32."""
    extra_filters: tuple[int, ...] = _EXTRA_FILTERS
    """Channels of each extra map."""
    head: Head = "ssdlite"

    def __post_init__(self) -> None:
        object.__setattr__(self, "extra_filters", tuple(self.extra_filters))
        if not isinstance(self.arch, Arch):
            raise ValueError("the backbone of a detector must be a network of blocks, but got one of cells")
        if self.arch.output_stride != OUTPUT_STRIDE:
            raise ValueError(
                f"the backbone of a detector must have output stride {OUTPUT_STRIDE}, but got "
                f"{self.arch.output_stride}; choose a network whose strides multiply to {OUTPUT_STRIDE}"
            )
        require_detector_size(self.input_size)
        require_choice("head", self.head, get_args(Head))
        for filters in self.extra_filters:
            require_int("extra_filters", filters, 2, MAX_FILTERS)
        if len(self.boxes.shapes) - len(self.extra_filters) not in (2, 3):
            raise ValueError(
                f"a detector with {len(self.extra_filters)} extra maps must have default boxes on two or three more, "
                f"but got {len(self.boxes.shapes)} maps"
            )

    @property
    def has_stride_8(self) -> bool:
        """Whether the finest map has output stride 8."""
        return len(self.boxes.shapes) == len(self.extra_filters) + 3

    @property
    def map_sides(self) -> tuple[int, ...]:
        """Side of each map in pixels; each extra layer halves it, rounding up."""
        return map_sides(self.input_size, len(self.boxes.shapes), len(self.extra_filters))

    @functools.cached_property
    def default_boxes(self) -> npt.NDArray[np.float32]:
        """All default boxes (N, 4), as `DefaultBoxes.boxes` orders them."""
        return self.boxes.boxes(self.map_sides)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of the detector: 16 hexadecimal digits, the same on every machine and Python version."""
        values = {**self.to_dict(), "arch": self.arch.canonical().to_dict()}
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values, from which `from_dict` restores an equal object."""
        return {
            "arch": self.arch.to_dict(),
            "boxes": [[list(shape) for shape in of_map] for of_map in self.boxes.shapes],
            "input_size": self.input_size,
            "extra_filters": list(self.extra_filters),
            "head": self.head,
        }

    @staticmethod
    def from_dict(values: object) -> "Detector":
        """Return the detector of `to_dict`'s values. Raises ValueError on an unknown, missing or invalid field."""
        record = checked_fields(Detector, values, "detector")
        try:
            boxes = DefaultBoxes(shapes=record["boxes"])
        except TypeError:
            raise ValueError(f"boxes must be lists of two numbers, but got {reprlib.repr(record['boxes'])}") from None
        return Detector(**{**record, "arch": Arch.from_dict(record["arch"]), "boxes": boxes})


def detector_on(
    arch: Architecture, head: Head, *, input_size: int = INPUT_SIZE, boxes: DefaultBoxes | None = None
) -> Detector:
    """Return the detector on `arch` with these boxes (None: the paper's). Raises ValueError where it cannot be one."""
    return Detector(arch=cast(Arch, arch), boxes=boxes or paper_boxes(), input_size=input_size, head=head)


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """Rules by which a file selects boxes inside: per class, those above a score that no better one overlaps.

    Raises ValueError if a field is out of range.
    """

    score_threshold: float = 0.01
    """Probability above which a box is an object."""
    nms_iou: float = 0.55
    """Intersection over union with a better box of the same class above which a box is dropped."""
    most: int = 100
    """Largest number of objects in an image."""

    def __post_init__(self) -> None:
        require_number("score_threshold", self.score_threshold, 0, 1)
        require_number("nms_iou", self.nms_iou, 0.01, 1)
        require_int("most", self.most, 1, _MOST_OBJECTS)


@dataclass(frozen=True, kw_only=True)
class DetectorMetadata:
    """A trained detector, as its file describes it. Raises ValueError if a field is out of range."""

    detector: Detector
    classes: tuple[str, ...]
    """Class names in the order of the outputs, without the background, which is the first output."""
    mean: Triple
    """Mean of pixels in [0, 1]: the network takes (pixel / 255 - mean) / std."""
    std: Triple
    mean_precision: float | None = None
    """COCO's mAP of exactly these weights on the validation images; None if they were not scored."""
    trained_on: TrainedOn = ()
    """Images of the trainings, the last training first."""

    def __post_init__(self) -> None:
        require_int("number of classes", len(self.classes), 1, MOST_CLASSES)
        for name in self.classes:
            if fault := label_fault(name):
                raise ValueError(f"a label must be one line of text, but got {shown(name)} ({fault})")
        check_mean(self.mean)
        check_std(self.std)
        if self.mean_precision is not None:
            require_number("mean_precision", self.mean_precision, 0, 1)


def detector_json(metadata: DetectorMetadata) -> dict[str, Any]:
    """Return JSON-able values for `detector_from_json`, as model files store them."""
    return {
        **{field.name: getattr(metadata, field.name) for field in dataclasses.fields(metadata)},
        "detector": metadata.detector.to_dict(),
        "classes": list(metadata.classes),
        "trained_on": trained_on_json(metadata.trained_on),
    }


def detector_from_json(values: Mapping[str, Any]) -> DetectorMetadata:
    """Return the record of values from `detector_json`. Raises KeyError, TypeError or ValueError for other values."""
    return DetectorMetadata(
        detector=Detector.from_dict(values["detector"]),
        classes=tuple(values["classes"]),
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
        mean_precision=values.get("mean_precision"),
        trained_on=read_trained_on(values.get("trained_on", [])),
    )


def exported_json(metadata: DetectorMetadata, suppression: Suppression | None) -> dict[str, Any]:
    """Return JSON-able values as exported files store them, for `detector_from_json` and `suppression_from_json`."""
    return {
        **detector_json(metadata),
        "fingerprint": metadata.detector.fingerprint,
        "suppression": None if suppression is None else dataclasses.asdict(suppression),
    }


def suppression_from_json(values: Mapping[str, Any]) -> Suppression | None:
    """Return the rules by which an exported file selects boxes; None: it gives all boxes.

    Raises KeyError, TypeError or ValueError for other values than those of `exported_json`.
    """
    rules = values["suppression"]
    return None if rules is None else Suppression(**checked_fields(Suppression, rules, "suppression"))
