"""From an image as its annotations describe it to a `BoxedImage`: the file's size, its rotation, and faulty boxes."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from mnas.data.decoding.decoders import opened
from mnas.data.detection.faults import FaultCount
from mnas.data.detection.record import BoxedImage
from mnas.data.image import UnreadableImage, reason

Boxes = npt.NDArray[np.float64]
BoxForm = Literal["xywh", "xyxy", "shares"]
"""xywh: corner and size in pixels. xyxy: two corners in pixels. shares: two corners as shares of the upright image."""

_OUTSIDE_PX = 1.0  # annotations are often rounded, so a smaller excess is no fault
_WRONG_FORM_SHARE = 0.1  # of boxes that reach outside as xywh
_OTHER_FORM_SHARE = 0.99  # of boxes that fit as xyxy, or as shares


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotated:
    """An image as its annotations describe it. The file was not opened."""

    path: Path
    name: str
    image_id: int
    size: tuple[int, int] | None
    """Width and height that the annotations give; None if they give none."""
    boxes: list[list[float]] = field(default_factory=list)
    """Four finite numbers for each box."""
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    areas: list[float | None] = field(default_factory=list)
    """Area of each object; None: that of its box."""


@dataclass(frozen=True, kw_only=True)
class AnnotatedData:
    """The content of all annotations of a data set."""

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    """Number of each class in COCO JSON."""
    form: BoxForm
    """Meaning of the numbers of a box."""
    parts: Mapping[str, Sequence[Annotated]]


@dataclass(frozen=True)
class _Header:
    """Sizes (width, height) of an image file as stored and upright, and its orientation."""

    stored: tuple[int, int]
    upright: tuple[int, int]
    orientation: int
    size_bytes: int


def settled(
    images: Sequence[Annotated], form: BoxForm, faults: FaultCount, source: str, on_image: Callable[[], None]
) -> tuple[list[BoxedImage], list[str]]:
    """Return the readable images with valid boxes, and (name: reason) of each unreadable one.

    Opens every file, but decodes no pixels. Boxes are turned with an image that has an EXIF orientation, if the
    annotations give the size of its stored pixels; else they describe the upright image, as annotation tools show it.

    Args:
        form: meaning of the numbers of a box.
        faults: receives the faults.
        source: name of the annotations, for messages.
        on_image: is called after each image.

    Raises:
        ValueError: none of the images exists, or the boxes have another form.
    """
    headers: list[_Header | None] = []
    unreadable = []
    for image in images:
        header = None
        if not os.path.exists(image.path):
            faults.add("listed images do not exist (skipped)", image.name)
        else:
            try:
                header = _header(image.path)
            except UnreadableImage as error:
                unreadable.append(f"{image.name}: {reason(error)}")
        headers.append(header)
        on_image()
    if images and not any(headers) and not unreadable:
        raise ValueError(
            f"the images that {source} lists must be in --data, but none of {len(images)} exists (the first: "
            f"{images[0].name!r})"
        )
    if form != "shares":
        _check_form(images, headers, form, source)
    boxed = [
        result
        for image, header in zip(images, headers, strict=True)
        if header is not None and (result := _boxed(image, header, form, faults)) is not None
    ]
    return boxed, unreadable


def _header(path: Path) -> _Header:
    """Return the sizes of an image file. Raises UnreadableImage."""
    try:
        size_bytes = os.stat(path).st_size
    except OSError as error:
        raise UnreadableImage(f"it cannot be read: {error.strerror}") from None
    with opened(path) as image:
        return _Header(image.stored_size, image.size, image.orientation, size_bytes)


def _check_form(images: Sequence[Annotated], headers: Sequence[_Header | None], form: BoxForm, source: str) -> None:
    """Raise ValueError if nearly all boxes are valid as shares, or as xyxy although many of xywh reach outside."""
    frames = [
        image.size or (header.upright if header else (0, 0)) for image, header in zip(images, headers, strict=True)
    ]
    counts = [len(image.boxes) for image in images]
    flat = np.array([box for image in images for box in image.boxes], np.float64).reshape(-1, 4)
    each = np.repeat(np.array(frames, np.float64).reshape(-1, 2), counts, axis=0)
    flat, each = flat[each[:, 0] > 0], each[each[:, 0] > 0]
    if not len(flat):
        return
    if ((np.abs(flat) <= 1).all(1) & (each > 2).all(1)).mean() >= _OTHER_FORM_SHARE:
        raise ValueError(
            f"boxes must be in pixels, but no number of the boxes in {source} is above 1, as in shares of the image; "
            "multiply x and widths by the width of the image, and y and heights by its height"
        )
    if form == "xyxy":
        return
    outside = (flat[:, :2] + flat[:, 2:] > each + _OUTSIDE_PX).any(1)
    corners = (flat[:, 2:] > flat[:, :2]).all(1) & (flat[:, 2:] <= each + _OUTSIDE_PX).all(1)
    if outside.sum() > _WRONG_FORM_SHARE * len(flat) and corners.mean() >= _OTHER_FORM_SHARE:
        raise ValueError(
            f"boxes must be [x, y, width, height], but {outside.sum()} of {len(flat)} boxes in {source} reach outside "
            "of their images, and they fit as [x1, y1, x2, y2]; subtract x1 and y1 from the last two numbers"
        )


def _boxed(image: Annotated, header: _Header, form: BoxForm, faults: FaultCount) -> BoxedImage | None:
    """Return the record of an image; None if its annotations describe an image of another shape."""
    width, height = header.upright
    boxes = np.array(image.boxes, np.float64).reshape(-1, 4)
    if form == "xywh":
        boxes[:, 2:] += boxes[:, :2]
    areas = np.array([math.nan if area is None else area for area in image.areas], np.float64)
    if form == "shares":
        boxes *= [width, height, width, height]
    elif image.size is not None and image.size != header.upright:
        if image.size == header.stored:
            boxes = _turned(boxes, header)
        elif _same_shape(image.size, header.upright):
            faults.add("images have another resolution than their annotations say (boxes scaled)", image.name)
            factors = np.array(header.upright) / image.size
            boxes *= np.tile(factors, 2)
            areas *= factors.prod()
        else:
            faults.add("images have another shape than their annotations say (skipped)", image.name)
            return None
    positive = (boxes[:, 2:] > boxes[:, :2]).all(1)
    clipped = np.clip(boxes, 0, [width, height, width, height])
    inside = (clipped[:, 2:].astype(np.float32) > clipped[:, :2].astype(np.float32)).all(1)
    cut = (np.abs(boxes - clipped) > _OUTSIDE_PX).any(1)
    faults.add("boxes have no area (dropped)", image.name, int((~positive).sum()))
    faults.add("boxes are outside of their image (dropped)", image.name, int((positive & ~inside).sum()))
    faults.add("boxes reach outside of their image (clipped)", image.name, int((positive & inside & cut).sum()))
    valid = positive & inside
    sizes = clipped[:, 2:] - clipped[:, :2]
    return BoxedImage(
        path=image.path,
        name=image.name,
        image_id=image.image_id,
        width=width,
        height=height,
        boxes=clipped[valid].astype(np.float32),
        labels=np.array(image.labels, np.int64)[valid],
        crowd=np.array(image.crowd, np.bool_)[valid],
        areas=np.where(np.isnan(areas), sizes.prod(1), areas)[valid].astype(np.float32),
        size_bytes=header.size_bytes,
    )


def _same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether both sizes have the same aspect ratio, to a pixel of the smaller one."""
    small, large = sorted((size, other))
    return min(large) > 0 and abs(large[1] * small[0] / large[0] - small[1]) <= 1


def _turned(boxes: Boxes, header: _Header) -> Boxes:
    """Return boxes of the stored image as boxes of the upright image, which has the sides exchanged."""
    width, height = header.stored
    x1, y1, x2, y2 = boxes.T
    sides = {
        5: (y1, x1, y2, x2),
        6: (height - y2, x1, height - y1, x2),
        7: (height - y2, width - x2, height - y1, width - x1),
        8: (y1, width - x2, y2, width - x1),
    }
    return np.stack(sides[header.orientation], axis=1)
