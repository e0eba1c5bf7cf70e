"""Views of an image and its boxes in training: zoomed out, cropped, mirrored, in other colours, resized to a square.

Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016, arXiv:1512.02325), section 2.2 and 3.6, with the draws of
torchvision's transforms. All draws depend on (seed, epoch, image), and so not on the workers or on earlier images.

Departures from torchvision's reference training:
1. Zooming out, cropping and resizing are one step: only the pixels that the result shows are resized, once.
2. Colours change after that step, which is faster, and so change the border of a zoomed-out image too.
3. Crops are drawn 40 at once, which is faster; torchvision's draws follow the same distribution.
4. A crowd stays if any of it is visible, and no crop is made around crowds.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from mnas.data.augment import seed_of
from mnas.data.detection.augmentation import STRENGTHS, BoxAugmentation, Strength
from mnas.data.image import Pixels

FILL = (124, 116, 104)
"""Colour around a zoomed-out image: the mean of ImageNet."""
_DRAWS = 20  # purpose of a seed, its first number; `mnas.data.view` has 16 and 17
_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # 1: no crop
_ASPECT = 2
_TRIES = 40
_LEAST_BOX = 1  # pixels of the result, as in torchvision's SanitizeBoundingBoxes

Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Objects:
    """The boxes of an image."""

    boxes: Boxes
    """(N, 4): left, top, right and bottom as shares of the image."""
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]

    def chosen(self, which: npt.NDArray[np.bool_], boxes: Boxes) -> "Objects":
        """Return some of the objects, with other boxes (N, 4)."""
        return Objects(boxes=boxes[which], labels=self.labels[which], crowd=self.crowd[which])


@dataclass(frozen=True)
class Window:
    """The part of the plane that the result shows, in pixels of the image; it may be larger than the image."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class BoxView:
    """The size and augmentation of training images."""

    size: int
    """Side of the result, in pixels."""
    augmentation: BoxAugmentation
    flip: bool
    """Whether half of the images are mirrored."""
    seed: int

    def varied(self, pixels: Pixels, objects: Objects, epoch: int, image: int) -> tuple[Pixels, Objects]:
        """Return pixels (size, size, 3) and objects of an image, varied by (seed, epoch, image).

        Args:
            pixels: (H, W, 3).
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(_DRAWS, self.seed, epoch, image))
            return self._varied(pixels, objects)

    def _varied(self, pixels: Pixels, objects: Objects) -> tuple[Pixels, Objects]:
        how = STRENGTHS[self.augmentation]
        height, width = pixels.shape[:2]
        absolute = objects.boxes * np.array([width, height, width, height], np.float32)
        window, inside = _drawn_window(absolute, objects.crowd, width, height, how)
        view, moved = _seen_through(window, pixels, absolute, self.size)
        if self.flip and float(torch.rand(1)) < 0.5:
            view = view.flip(-1)
            moved = np.stack([self.size - moved[:, 2], moved[:, 1], self.size - moved[:, 0], moved[:, 3]], axis=1)
        if how.hue:
            view = _colours(self.augmentation)(view)
        moved = np.clip(moved, 0, self.size)
        sides = moved[:, 2:] - moved[:, :2]
        valid = inside & (sides >= _LEAST_BOX).all(1)
        result = objects.chosen(valid, (moved / self.size).astype(np.float32))
        return np.ascontiguousarray(view.permute(1, 2, 0).numpy()), result


def _drawn_window(
    boxes: Boxes, crowd: npt.NDArray[np.bool_], width: int, height: int, how: Strength
) -> tuple[Window, npt.NDArray[np.bool_]]:
    """Return the window to show, and which boxes (N, 4), in pixels, it contains."""
    window = Window(0, 0, width, height)
    if how.zoom > 1 and float(torch.rand(1)) < how.zoom_share:
        plane = tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=(height, width))
        x, y, right, bottom = v2.RandomZoomOut(side_range=(1, how.zoom)).make_params([plane])["padding"]
        window = Window(-x, -y, width + x + right, height + y + bottom)
    if how.crop < 1 and not crowd.all():
        window = drawn_crop(window, boxes[~crowd], how.crop)
    low = np.array([window.x, window.y])
    high = low + np.array([window.width, window.height])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > low) & (centres < high)).all(1)
    touching = ((boxes[:, 2:] > low) & (boxes[:, :2] < high)).all(1)
    return window, np.where(crowd, touching, inside)


def drawn_crop(window: Window, boxes: Boxes, least: float) -> Window:
    """Return a random part of the window as torchvision's `RandomIoUCrop` does, which draws one after another.

    A part counts if it contains the centre of a box, and overlaps one such box by a random intersection over union.

    Args:
        boxes: (N, 4) in pixels, one or more.
        least: smallest side of a part, as a share of the window's.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    whole = np.array([window.width, window.height])
    while (overlap := _OVERLAPS[int(torch.randint(len(_OVERLAPS), (1,)))]) < 1:
        draws = torch.rand(_TRIES, 2, 2, dtype=torch.float64).numpy()
        sides = (whole * (least + (1 - least) * draws[:, 0])).astype(np.int64)
        low = ((whole - sides) * draws[:, 1]).astype(np.int64) + np.array([window.x, window.y])
        high = low + sides
        usable = (sides > 0).all(1) & (sides[:, 0] <= _ASPECT * sides[:, 1]) & (sides[:, 1] <= _ASPECT * sides[:, 0])
        inside = ((centres > low[:, None]) & (centres < high[:, None])).all(2)
        shared = np.minimum(boxes[:, 2:], high[:, None]) - np.maximum(boxes[:, :2], low[:, None])
        common = np.maximum(shared, 0).prod(2)
        iou = common / (areas + sides.prod(1)[:, None] - common)
        valid = np.flatnonzero(usable & (inside & (iou >= overlap)).any(1))
        if len(valid):
            return Window(*low[valid[0]].tolist(), *sides[valid[0]].tolist())
    return window


def _seen_through(window: Window, pixels: Pixels, boxes: Boxes, size: int) -> tuple[Tensor, Boxes]:
    """Return the window as an image (3, size, size), and the boxes in its pixels.

    The visible part of the image is resized to whole pixels, and the boxes move by exactly the same map.
    """
    height, width = pixels.shape[:2]
    (x0, x1), (to_x0, to_x1) = _span(window.x, window.width, width, size)
    (y0, y1), (to_y0, to_y1) = _span(window.y, window.height, height, size)
    part = torch.from_numpy(pixels[y0:y1, x0:x1]).permute(2, 0, 1)
    sides = to_y1 - to_y0, to_x1 - to_x0
    view = functional.resize(part, list(sides), antialias=True)
    if sides != (size, size):
        plane = torch.tensor(FILL, dtype=torch.uint8).repeat(size, size, 1).permute(2, 0, 1)
        plane[:, to_y0:to_y1, to_x0:to_x1] = view
        view = plane
    factors = np.array([sides[1] / (x1 - x0), sides[0] / (y1 - y0)], np.float32)
    moved = (boxes.reshape(-1, 2, 2) - np.array([x0, y0], np.float32)) * factors
    return view, (moved + np.array([to_x0, to_y0], np.float32)).reshape(-1, 4)


def _span(start: int, length: int, limit: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return which pixels of an axis are visible (from, to), and where in the result they are (from, to)."""
    first, last = max(0, start), min(limit, start + length)
    to_first = min(size - 1, round((first - start) / length * size))
    return (first, last), (to_first, max(to_first + 1, round((last - start) / length * size)))


@functools.cache
def _colours(augmentation: BoxAugmentation) -> Any:
    """Return torchvision's transform of colours."""
    how = STRENGTHS[augmentation]
    contrast, brightness = (1 - how.contrast, 1 + how.contrast), (1 - how.brightness, 1 + how.brightness)
    if how.swap:
        return v2.RandomPhotometricDistort(
            brightness=brightness, contrast=contrast, saturation=contrast, hue=(-how.hue, how.hue)
        )
    jitter = v2.ColorJitter(brightness=brightness, contrast=contrast, saturation=contrast, hue=how.hue)
    return v2.RandomApply([jitter], p=0.5)
