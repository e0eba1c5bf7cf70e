"""Batches of images with boxes, identical for any number of workers and after any resume."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mnas.data.augment import generator_of, seed_of
from mnas.data.cache import OnProgress
from mnas.data.detection.augmentation import BoxAugmentation
from mnas.data.detection.pixels import MOST_CACHED_BYTES, PixelSource, open_pixels
from mnas.data.detection.record import BoxedImage, DetectionData, DetectionPart
from mnas.data.detection.view import BoxView, Objects
from mnas.data.files import DIGESTED_BYTES
from mnas.data.image import Pixels, UnreadableImage, reason
from mnas.data.mirror import Mirror, mirrors
from mnas.data.source import digests_of
from mnas.data.workers import Loaded, Unreadable, loader_options
from mnas.detector import MOST_INPUT_SIZE
from mnas.folders import user_cache_dir
from mnas.nn.detection.loss import BoxTarget
from mnas.require import require_int

MOST_READERS = 16
_DETAIL = 2  # longer side of cached training images, in input sizes: a crop may enlarge an image
_ORDER, _SUBSTITUTE = 0, 2  # purpose of a seed, its first number, as in `mnas.data.files`
_SUBSTITUTES = 10

Indices = npt.NDArray[np.int64]
Step = tuple[int, Indices]
"""Epoch, and the places of images in their part."""


def open_box_batches(
    data: DetectionData,
    *,
    input_size: int,
    augmentation: BoxAugmentation,
    mirror: Mirror = "auto",
    seed: int,
    workers: int | Literal["auto"] = "auto",
    cache_dir: Path | None = None,
    most_cached_bytes: int = MOST_CACHED_BYTES,
    on_progress: OnProgress | None = None,
) -> "BoxBatches":
    """Return the images of `data` in batches, decoded into the cache if they fit.

    Args:
        mirror: whether half of the training images are mirrored.
        seed: seed of the order and the augmentation.
        workers: number of processes that read training images, started again for every epoch; 0: none. auto: one per
            core, at most 16; a single one for cached images on a machine without a GPU.
        cache_dir: folder of the cache; None: the user's cache folder.
        most_cached_bytes: largest decoded size, in bytes, of the training images or of another part that is cached.
        on_progress: callback that receives (images done, total images) while images are decoded.

    Raises:
        ValueError: an option is out of range, files change meanwhile, more than 1 % of the images are unreadable, or
            the cache cannot be written.
    """
    require_int("--input-size", input_size, 8, MOST_INPUT_SIZE)
    cache_dir = user_cache_dir() if cache_dir is None else cache_dir
    parts = data.parts
    small = sum(image.size_bytes for images in parts.values() for image in images) <= DIGESTED_BYTES
    paths = [str(image.path) for images in parts.values() for image in images] if small else []
    sha256 = digests_of(paths, cache_dir)
    total, done = sum(map(len, parts.values())), 0

    def count() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    def opened(part: DetectionPart) -> PixelSource:
        return open_pixels(
            parts[part], "bounded" if part == "train" else "square", input_size * (_DETAIL if part == "train" else 1),
            cache_dir=cache_dir, name=data.name, sha256=sha256, most_bytes=most_cached_bytes if small else 0,
            on_image=count,
        )  # fmt: skip

    pixels = {part: opened(part) for part in parts}
    content = data.content(cache_dir) if small else data.by_stat
    view = BoxView(size=input_size, augmentation=augmentation, flip=mirrors(mirror, True, data.classes), seed=seed)
    readers = _readers(pixels.get("train")) if workers == "auto" else workers
    return BoxBatches(data, pixels, view, readers, content)


def _readers(source: PixelSource | None) -> int:
    if source is not None and source.file is not None and not torch.cuda.is_available():
        return 1
    return max(1, min(MOST_READERS, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


class BoxBatches:
    """The images of a detection data set; every draw is a function of (seed, epoch) or (seed, epoch, image)."""

    def __init__(
        self,
        data: DetectionData,
        pixels: dict[DetectionPart, PixelSource],
        view: BoxView,
        workers: int,
        content: str,
    ) -> None:
        self.data, self.input_size, self.mirrored = data, view.size, view.flip
        self.content = content
        """Digest of the data: `DetectionData.content`, or `DetectionData.by_stat` of a data set of more than 8 GB."""
        self.counts: dict[DetectionPart, int] = {part: len(images) for part, images in data.parts.items()}
        self._pixels, self._view, self._options = pixels, view, loader_options(workers)
        self._unreadable = Unreadable(sum(self.counts.values()) + len(data.unreadable))
        for part, source in pixels.items():
            names = {place: data.parts[part][place].name for place in source.unreadable}
            self._unreadable.add([(names[place], why) for place, why in source.unreadable.items()])

    @property
    def skipped(self) -> tuple[str, ...]:
        """Images found unreadable so far, each with the reason."""
        return (*self.data.unreadable, *self._unreadable.lines)

    def images(self, part: DetectionPart) -> tuple[BoxedImage, ...]:
        """Return the images of a part; empty if it does not exist."""
        return self.data.parts.get(part, ())

    def steps(self, batch_size: int) -> int:
        """Return the number of training steps per epoch; each epoch drops its own incomplete last batch."""
        return self.counts["train"] // batch_size

    def training(
        self, epoch: int, batch_size: int, *, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, list[BoxTarget]]]:
        """Yield varied images and their objects of the epoch's steps from `start` on.

        Images are uint8 (B, S, S, 3) on the CPU, with B = batch_size / world: the share of process `rank` of `world` in
        the step's batch_size images. All shares together are the batch of a single process. Boxes are shares of the
        image; labels count from 1. An unreadable image is replaced by another, randomly drawn one.

        Raises:
            ValueError: more than 1 % of the images are unreadable.
        """
        order = torch.randperm(self.counts["train"], generator=generator_of(_ORDER, self._view.seed, epoch)).numpy()
        share = batch_size // world
        firsts = range(start * batch_size + rank * share, self.steps(batch_size) * batch_size, batch_size)
        steps = [(epoch, order[first : first + share]) for first in firsts]
        dataset = _Varied(self._pixels["train"], self._view)
        for images, boxes, labels, crowd, counts in self._loaded(dataset, steps, self._options):
            yield images, _targets(boxes, labels, crowd, counts)

    def scoring(self, part: DetectionPart, batch_size: int) -> Iterator[tuple[tuple[BoxedImage, ...], Pixels]]:
        """Yield all images of a part in order, and their pixels, resized to squares: uint8 (B, S, S, 3).

        Unreadable images are left out. Raises ValueError if they exceed 1 % of all images.
        """
        images, source = self.images(part), self._pixels[part]
        if source.form != "square":
            source = PixelSource(images=images, form="square", size=self._view.size, file=None, unreadable={})
        places = np.arange(len(images))
        steps = [(0, places[start : start + batch_size]) for start in range(0, len(places), batch_size)]
        options = self._options if source.file is None else loader_options(0)
        for pixels, chosen in self._loaded(_Squares(source), steps, options):
            if len(chosen):
                yield tuple(images[place] for place in chosen.tolist()), pixels.numpy()

    def _loaded(
        self, dataset: Dataset[Any], steps: Sequence[Step], options: dict[str, Any]
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield the tensors of each step."""
        loader: DataLoader[Any] = DataLoader(dataset, sampler=steps, **options)
        batches = Loaded(loader)
        try:
            for *tensors, unreadable in batches:
                self._unreadable.add(unreadable)
                yield tuple(tensors)
        finally:
            batches.close()


def _targets(boxes: Tensor, labels: Tensor, crowd: Tensor, counts: Tensor) -> list[BoxTarget]:
    """Return the objects of each image; `counts` (B,) says how many of the boxes belong to it."""
    ends = np.cumsum(counts.numpy())[:-1].tolist()
    parts = (torch.tensor_split(tensor, ends) for tensor in (boxes, labels, crowd))
    return [
        BoxTarget(of_image[~is_crowd], names[~is_crowd], of_image[is_crowd] if bool(is_crowd.any()) else None)
        for of_image, names, is_crowd in zip(*parts, strict=True)
    ]


class _Varied(Dataset[tuple[Any, ...]]):
    """Training images. Items are whole batches, with all boxes in one tensor, as few tensors pass between processes."""

    def __init__(self, source: PixelSource, view: BoxView) -> None:
        self._source, self._view = source, view
        images = source.images
        # Arrays: worker processes would gradually copy many Python objects.
        self._ends = np.cumsum([0, *(len(image.boxes) for image in images)])
        sides = [np.array([image.width, image.height] * 2, np.float32) for image in images]
        shares = [image.boxes / side for image, side in zip(images, sides, strict=True)]
        self._boxes = np.concatenate([*shares, np.zeros((0, 4), np.float32)])
        self._labels = np.concatenate([*(image.labels for image in images), np.zeros(0, np.int64)])
        self._crowd = np.concatenate([*(image.crowd for image in images), np.zeros(0, np.bool_)])

    def __getitem__(self, step: Step) -> tuple[Any, ...]:
        """Return images (B, S, S, 3), boxes (N, 4), labels from 1 (N,), crowd (N,), boxes of each image (B,), and
        (name, reason) of each unreadable image."""
        epoch, places = step
        size = self._view.size
        images = np.empty((len(places), size, size, 3), np.uint8)
        objects: list[Objects] = []
        unreadable: list[tuple[str, str]] = []
        for place in places.tolist():
            for candidate in self._candidates(epoch, place):
                try:
                    pixels = self._source.pixels(candidate)
                except UnreadableImage as error:
                    unreadable.append((self._source.images[candidate].name, reason(error)))
                    continue
                images[len(objects)], varied = self._view.varied(pixels, self._objects(candidate), epoch, place)
                objects.append(varied)
                break
        return (
            torch.from_numpy(images[: len(objects)]),
            torch.from_numpy(np.concatenate([each.boxes for each in objects])),
            torch.from_numpy(np.concatenate([each.labels for each in objects]) + 1),
            torch.from_numpy(np.concatenate([each.crowd for each in objects])),
            torch.tensor([len(each.boxes) for each in objects]),
            unreadable,
        )

    def _objects(self, place: int) -> Objects:
        rows = slice(self._ends[place], self._ends[place + 1])
        return Objects(boxes=self._boxes[rows], labels=self._labels[rows], crowd=self._crowd[rows])

    def _candidates(self, epoch: int, place: int) -> Iterator[int]:
        """Yield the image's place and those of its substitutes."""
        yield place
        for turn in range(_SUBSTITUTES):
            yield seed_of(_SUBSTITUTE, self._view.seed, epoch, place, turn) % len(self._source.images)


class _Squares(Dataset[tuple[Any, ...]]):
    """Images for evaluation."""

    def __init__(self, source: PixelSource) -> None:
        self._source = source

    def __getitem__(self, step: Step) -> tuple[Any, ...]:
        """Return images (B, S, S, 3), their places (B,), and (name, reason) of each unreadable image."""
        pixels: list[Pixels] = []
        places: list[int] = []
        unreadable: list[tuple[str, str]] = []
        for place in step[1].tolist():
            try:
                pixels.append(self._source.pixels(place))
                places.append(place)
            except UnreadableImage as error:
                unreadable.append((self._source.images[place].name, reason(error)))
        size = self._source.size
        stacked = np.stack(pixels) if pixels else np.zeros((0, size, size, 3), np.uint8)
        return torch.from_numpy(stacked), torch.tensor(places, dtype=torch.int64), unreadable
