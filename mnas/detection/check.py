"""Check a detection data set: the boxes of each class, their sizes, and the share that default boxes match."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from mnas.data.batches import unreadable_line
from mnas.data.cache import OnProgress
from mnas.data.detection.faults import DataFault, fault_line
from mnas.data.detection.load import load_detection
from mnas.data.detection.record import DetectionData, DetectionPart
from mnas.data.listing.class_lines import aligned, plain
from mnas.detection.fitted import TARGET, BoxRule, box_shares, fitted_boxes, matched_by
from mnas.detector import DefaultBoxes, Detector, map_sides, paper_boxes, require_detector_size
from mnas.require import require_choice, require_int
from mnas.text import counted

_MOST_CLASSES = 20
_ENDS = 8  # classes with the most boxes, and with the smallest matched shares, that a longer table shows
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class CheckedClass:
    """The boxes of a class, without crowds."""

    name: str
    boxes: dict[DetectionPart, int]
    """Part -> number of boxes."""
    median_px: float | None
    """Median side of the boxes of all parts in pixels of the detector's input: the root of their area. None: no
    boxes."""
    smallest_px: float | None
    largest_px: float | None
    matched: dict[DetectionPart, float | None]
    """Part -> share of the boxes that a default box overlaps with an intersection over union of 0.5; None: no boxes."""
    unmatched_px: float | None
    """Median side of the training boxes that no default box matches; None: every box has one."""


@dataclass(frozen=True, kw_only=True)
class CheckedData:
    """The result of a check."""

    name: str
    layout: str
    input_size: int
    default_boxes: int
    """Number of default boxes on all maps."""
    paper: bool
    """Whether these are the default boxes of SSDLite."""
    map_sides: tuple[int, ...]
    classes: tuple[CheckedClass, ...]
    images: dict[DetectionPart, int]
    empty: dict[DetectionPart, int]
    """Part -> number of images without boxes."""
    crowds: int
    """Number of crowds, which are in no other number."""
    held_out: bool
    """Whether the validation images were drawn from the training images."""
    seed: int
    faults: tuple[DataFault, ...]
    unreadable: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return asdict(self)


def chosen_boxes(rule: BoxRule, data: DetectionData, input_size: int) -> DefaultBoxes:
    """Return the default boxes of a rule for the training images. Raises ValueError if no box is there to fit to."""
    return paper_boxes() if rule == "paper" else fitted_boxes(data.train, len(data.classes), input_size)


def check_folder(
    folder: str | Path,
    *,
    boxes: BoxRule,
    input_size: int,
    seed: int,
    on_progress: OnProgress | None = None,
) -> CheckedData:
    """Return the check of a folder; arguments and errors as of `load_detection` and `chosen_boxes`."""
    require_int("--seed", seed, 0, 2**63 - 1)
    require_choice("--boxes", boxes, get_args(BoxRule))
    require_detector_size(input_size)
    data = load_detection(folder, seed=seed, on_progress=on_progress)
    return check_boxes(data, chosen_boxes(boxes, data, input_size), input_size)


def check_boxes(data: DetectionData, boxes: DefaultBoxes, input_size: int) -> CheckedData:
    """Return the numbers of boxes, their sizes and matched shares."""
    sides = map_sides(input_size, len(boxes.shapes))
    shares = {part: box_shares(images) for part, images in data.parts.items()}
    matches = {part: matched_by(array, boxes, sides) for part, (array, _) in shares.items()}
    sizes = {part: np.sqrt((array[:, 2:] - array[:, :2]).prod(1)) * input_size for part, (array, _) in shares.items()}

    def checked(label: int, name: str) -> CheckedClass:
        of_class = {part: labels == label for part, (_, labels) in shares.items()}
        every = np.concatenate([sizes[part][which] for part, which in of_class.items()])
        unmatched = sizes["train"][of_class["train"] & ~matches["train"]] if "train" in shares else np.zeros(0)
        return CheckedClass(
            name=name,
            boxes={part: int(which.sum()) for part, which in of_class.items()},
            median_px=_rounded(np.median, every),
            smallest_px=_rounded(np.min, every),
            largest_px=_rounded(np.max, every),
            matched={part: _share(matches[part][which]) for part, which in of_class.items()},
            unmatched_px=_rounded(np.median, unmatched),
        )

    return CheckedData(
        name=data.name,
        layout=data.layout,
        input_size=input_size,
        default_boxes=sum(count * side**2 for count, side in zip(boxes.counts, sides, strict=True)),
        paper=boxes == paper_boxes(),
        map_sides=sides,
        classes=tuple(checked(label, name) for label, name in enumerate(data.classes)),
        images={part: len(images) for part, images in data.parts.items()},
        empty={part: sum(not len(image.boxes) for image in images) for part, images in data.parts.items()},
        crowds=sum(int(image.crowd.sum()) for images in data.parts.values() for image in images),
        held_out=data.held_out,
        seed=data.seed,
        faults=data.faults,
        unreadable=data.unreadable,
    )


def _rounded(function: Any, values: npt.NDArray[Any]) -> float | None:
    return round(float(function(values)), 1) if len(values) else None


def _share(which: npt.NDArray[np.bool_]) -> float | None:
    return float(which.mean()) if len(which) else None


def box_lines(data: DetectionData, detector: Detector) -> list[str]:
    """Return the lines that a training prints about its boxes."""
    return check_lines(check_boxes(data, detector.boxes, detector.input_size))


def check_lines(checked: CheckedData) -> list[str]:
    """Return the table of classes, the images, and notices about faults and unmatched boxes."""
    maps = ", ".join(map(str, checked.map_sides))
    counts = ", ".join(f"{count:,} {part}" for part, count in checked.images.items())
    drawn = f" (val drawn from train with seed {checked.seed})" if checked.held_out else ""
    empty = sum(checked.empty.values())
    crowds = f", {counted(checked.crowds, 'crowd')}" if checked.crowds else ""
    lines = [
        *aligned(_rows(checked)),
        f"images: {counts}{drawn}; {empty:,} without boxes{crowds}",
        f"default boxes: {checked.default_boxes:,} on maps of {maps} pixels at input size {checked.input_size}",
    ]
    if checked.unreadable:
        lines.append(unreadable_line(checked.unreadable))
    return [line for line in [*lines, fault_line(checked.faults), unmatched_line(checked)] if line]


def _rows(checked: CheckedData) -> list[list[str]]:
    parts = list(checked.images)
    scored = [part for part in parts if part != "test"] or parts
    rows = [["class", *parts, "median side", "range", *(f"matched {part}" for part in scored)]]
    for one in _printed(checked.classes):
        size = "" if one.median_px is None else f"{one.median_px:.0f} px"
        span = "" if one.smallest_px is None else f"{one.smallest_px:.0f} to {one.largest_px:.0f}"
        shares = (one.matched[part] for part in scored)
        cells = [plain(one.name), *(f"{one.boxes[part]:,}" for part in parts), size, span]
        rows.append([*cells, *("" if share is None else f"{100 * share:.1f} %" for share in shares)])
    if hidden := len(checked.classes) - (len(rows) - 1):
        rows.insert(1 + _ENDS, [f"... {hidden:,} more", *("" for _ in rows[0][1:])])
    sums = [sum(one.boxes[part] for one in checked.classes) for part in parts]
    name = f"all {len(checked.classes):,} classes" if len(checked.classes) > 1 else "all"
    return [*rows, [name, *(f"{count:,}" for count in sums), "", "", *(_total(checked, part) for part in scored)]]


def _printed(classes: Sequence[CheckedClass]) -> Sequence[CheckedClass]:
    """Return all classes; of many, those with the most boxes, then those whose boxes are matched least."""
    if len(classes) <= _MOST_CLASSES:
        return classes
    frequent = sorted(classes, key=lambda one: -sum(one.boxes.values()))[:_ENDS]
    rest = [one for one in classes if one not in frequent and one.matched.get("train") is not None]
    return [*frequent, *sorted(rest, key=lambda one: one.matched["train"] or 0.0)[:_ENDS]]


def _total(checked: CheckedData, part: DetectionPart) -> str:
    """Return the matched share of all boxes of a part."""
    pairs = [(one.matched[part], one.boxes[part]) for one in checked.classes]
    count = sum(number for _, number in pairs)
    return f"{100 * sum((share or 0) * number for share, number in pairs) / count:.1f} %" if count else ""


def unmatched_line(checked: CheckedData) -> str:
    """Return the warning about classes of which too few boxes are matched; empty without such classes."""
    short = [(one.matched["train"], one) for one in checked.classes if one.matched.get("train") is not None]
    few = sorted(((share, one) for share, one in short if share is not None and share < TARGET), key=lambda x: x[0])
    if not few:
        return ""
    named = ", ".join(
        f"{plain(one.name)} ({100 * share:.0f} %; the others have a median side of {one.unmatched_px:.0f} px)"
        for share, one in few[:_NAMED]
    )
    more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
    remedy = "--boxes fitted or a larger --input-size" if checked.paper else "a larger --input-size"
    return (
        f"warning: the default boxes match fewer than {100 * TARGET:.0f} % of the training boxes of {named}{more}; "
        f"a detector hardly learns boxes that match none. Use {remedy}."
    )
