"""Batches from tar shards in WebDataset's format, read front to back, for training from object storage.

Tar files must be read front to back, so each epoch shuffles the shards, joins them end to end, and cuts the result into
equal *lanes*, which are read in parallel, each through a buffer. A batch takes an equal part of every lane. The plan
follows from the number of images in each shard, the seed and the epoch. So batches are the same for any number of
workers and processes (each has some of the lanes), and a resumed training opens only the shards that it still needs.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mnas.atomic import write_atomic
from mnas.data.augment import generator_of, seed_of
from mnas.data.augmentation import Augmentation
from mnas.data.batches import Batches, Part, pairs
from mnas.data.cache import OnProgress
from mnas.data.image import SUFFIXES, Item, UnreadableImage, reason
from mnas.data.load import open_source, split_parts
from mnas.data.mirror import mirrors
from mnas.data.moments import sample_moments
from mnas.data.named import IMAGENET_MOMENTS
from mnas.data.shards.index import CLASSES_NAME, INFO_NAME, Shard, ShardIndex, image_names, read_index
from mnas.data.shards.tar_files import samples
from mnas.data.source import Source
from mnas.data.split import shuffled
from mnas.data.view import Content, ImageView
from mnas.data.workers import Loaded, Unreadable, loader_options
from mnas.readers import parse_json
from mnas.training_data import TrainingData, printable_name

MOST_LANES = 64
BUFFERED = 8192
"""Number of encoded images that all lanes together shuffle at a time; up to twice as many are in memory."""
_ORDER, _SUBSTITUTE, _BLOCK = 0, 2, 4  # purpose of a seed, its first number
_SUBSTITUTES = 10


class ShardBatches(Batches):
    """Images in tar files, shuffled by (seed, epoch), each augmented by (seed, epoch, image).

    Scoring skips an unreadable image; training replaces it with another image of the buffer.

    Args:
        data: see `mnas.data.shards.index.read_index`; or its result, or that of `read_unlabelled`.
        seed: seed of the order and the augmentation.
        crop: see `Batches.crop`.
        workers: number of processes that read and decode; at most one per lane is used.
        cache_dir: folder for cached mean and deviation.
        on_progress: callback that receives (images done, total images) while mean and deviation are estimated.

    Raises:
        ValueError: an argument is out of range, there are no such shards, or more than 1 % of the first images are
            unreadable.
        ImportError: webdataset is not installed.
    """

    def __init__(
        self,
        data: str | ShardIndex,
        *,
        input_size: int,
        seed: int,
        crop: float,
        augmentation: Augmentation,
        workers: int,
        cache_dir: Path,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._workers = workers
        loader_options(workers)  # its checks come before any reading
        index = self._index = read_index(data) if isinstance(data, str) else data
        self.mirrored = mirrors(augmentation.mirror, True, index.classes)
        self._view = ImageView(size=input_size, crop=crop, augmentation=augmentation, flip=self.mirrored, seed=seed)
        self.name, self.classes, self.input_size, self.crop = index.name, index.classes, input_size, crop
        self.counts = {part: sum(shard.images for shard in shards) for part, shards in index.parts.items()}
        self.fingerprint, self.content = index.fingerprint, index.content
        images = sum(self.counts.values())
        self.training_data = TrainingData(
            name=printable_name(index.name),
            content=index.content,
            images=images,
            seed=seed,
            max_images_per_class=0,
            held_out=False,
        )
        self._unreadable = Unreadable(images)
        self._listed: dict[str, Sequence[str]] = {}
        self._labels = len(index.classes) if index.labelled else 0
        self.mean, self.std = IMAGENET_MOMENTS  # unused without labels: a training normalises all images alike
        if index.labelled:
            self.mean, self.std = sample_moments(
                cache_dir,
                [index.content, index.places],
                self._view,
                lambda: _contents(index),
                self.counts["train"],
                on_progress,
            )

    @property
    def skipped(self) -> tuple[str, ...]:
        return self._unreadable.lines

    def training(
        self, epoch: int, batch_size: int, *, start: int = 0, rank: int = 0, world: int = 1, numbered: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        shards = self._index.parts["train"]
        lanes = lane_count(batch_size, len(shards))
        if lanes % world:
            raise ValueError(
                f"the processes must share {lanes} lanes equally (the largest power of two that divides the batch, at "
                f"most one for a shard), but got {world} processes; write more shards or choose another --batch-size"
            )
        own = range(rank * lanes // world, (rank + 1) * lanes // world)
        plan = _Plan(
            shards, self._view, self._labels, epoch, lanes, batch_size // lanes,
            steps=range(start, self.steps(batch_size)),
        )  # fmt: skip
        return pairs(self._loaded(plan, own), numbered=numbered)

    def numbered(self, part: Part, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        shards = self._index.parts[part]
        lanes = lane_count(batch_size, len(shards))
        each = batch_size // lanes
        longest = -(-self.counts[part] // lanes)
        steps = range(-(-longest // each))
        return self._loaded(_Plan(shards, self._view, self._labels, None, lanes, each, steps=steps), range(lanes))

    def train_labels(self) -> Tensor:
        return super().train_labels() if self._index.labelled else torch.zeros(self.counts["train"], dtype=torch.int64)

    def image_name(self, part: Part, index: int) -> str:
        for shard in self._index.parts[part]:
            if index < shard.images:
                return f"{shard.name}: {self._names(shard)[index]}"
            index -= shard.images
        raise IndexError(index)

    def _names(self, shard: Shard) -> Sequence[str]:
        """Return the names of a shard's images, without downloading it."""
        if shard.url not in self._listed:
            self._listed[shard.url] = image_names(shard)
        return self._listed[shard.url]

    def _loaded(self, plan: "_Plan", own: Sequence[int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        workers = min(self._workers, len(own))
        parts = Loaded(DataLoader(_Lanes(plan, own), **loader_options(workers)))
        try:
            for _ in plan.steps:
                by_lane: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
                for _ in range(max(1, workers)):  # the loader takes its workers in turn
                    lanes = next(parts)
                    if isinstance(lanes, str):
                        raise ValueError(lanes)
                    for lane, *taken, unreadable in lanes:
                        self._unreadable.add(unreadable)
                        by_lane[lane] = taken
                images, labels, numbers = (torch.cat([by_lane[lane][i] for lane in own]) for i in range(3))
                if len(labels):
                    yield images, labels, numbers
        finally:
            parts.close()


def lane_count(batch_size: int, shards: int) -> int:
    """Return the largest power of two that divides the batch, at most the number of shards, and at most 64."""
    lanes = 1
    while batch_size % (2 * lanes) == 0 and 2 * lanes <= min(shards, MOST_LANES):
        lanes *= 2
    return lanes


@dataclass(frozen=True)
class _Plan:
    """A pass over the shards."""

    shards: Sequence[Shard]
    view: ImageView
    classes: int
    """Number of classes; 0: the images have no labels."""
    epoch: int | None
    """Epoch; None: images are neither shuffled nor augmented."""
    lanes: int
    each: int
    """Number of images of every lane in a batch."""
    steps: range


@dataclass(frozen=True)
class _Encoded:
    """An encoded image in a shard."""

    name: str
    number: int
    """Position among all images of the part."""
    content: bytes
    label: int


class _Lanes(IterableDataset[Any]):
    """Yields, for every step, the parts of some lanes as a list, or one line about why they cannot be read."""

    def __init__(self, plan: _Plan, own: Sequence[int]) -> None:
        self._plan, self._own = plan, own

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        own = self._own if worker is None else self._own[worker.id :: worker.num_workers]
        lanes = {lane: _lane(self._plan, lane) for lane in own}
        for _ in self._plan.steps:
            try:
                # the parent expects one list per worker and step
                yield [(lane, *_taken(rest, self._plan)) for lane, rest in lanes.items()]
            except ValueError as error:  # an exception would show the worker's traceback to the user
                yield reason(error)
                return


_Seen = tuple[npt.NDArray[np.uint8] | None, int, int, list[tuple[str, str]]]
"""Pixels (None: unreadable), label, position among the part's images, and (name, reason) of unreadable images."""


def _taken(lane: Iterator[_Seen], plan: _Plan) -> tuple[Tensor, Tensor, Tensor, list[tuple[str, str]]]:
    """Return the lane's part of the next batch."""
    size = plan.view.size
    images = np.empty((plan.each, size, size, 3), np.uint8)
    labels: list[int] = []
    numbers: list[int] = []
    unreadable: list[tuple[str, str]] = []
    for pixels, label, number, failed in islice(lane, plan.each):
        unreadable += failed
        if pixels is not None:
            images[len(labels)] = pixels
            labels.append(label)
            numbers.append(number)
    return torch.from_numpy(images[: len(labels)]), _int64(labels), _int64(numbers), unreadable


def _int64(numbers: Sequence[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def _lane(plan: _Plan, lane: int) -> Iterator[_Seen]:
    """Yield the lane's images from the plan's first step on."""
    total = sum(shard.images for shard in plan.shards)
    begin, end = lane * total // plan.lanes, (lane + 1) * total // plan.lanes
    first = plan.steps.start * plan.each
    if plan.epoch is None:
        for image in _encoded(plan, range(len(plan.shards)), begin + first, end):
            yield _scored(plan.view, image)
        return
    order = torch.randperm(len(plan.shards), generator=generator_of(_ORDER, plan.view.seed, plan.epoch)).tolist()
    block = max(1, BUFFERED // plan.lanes)
    number = first // block  # earlier blocks were used before the training was stopped
    rest = _encoded(plan, order, begin + number * block, end)
    skip = first - number * block
    buffer = list(islice(rest, block))
    while buffer:
        following: list[_Encoded] = []
        seed = (_BLOCK, plan.view.seed, plan.epoch, lane, number)
        for index in torch.randperm(len(buffer), generator=generator_of(*seed)).tolist():
            following += islice(rest, 1)  # one image is read for each that leaves, which spreads the reading evenly
            if skip:
                skip -= 1
            else:
                yield _varied(plan, buffer, index)
        buffer, number = following, number + 1


def _encoded(plan: _Plan, order: Sequence[int], begin: int, end: int) -> Iterator[_Encoded]:
    """Yield images `begin` to `end` of the shards joined end to end in `order`."""
    numbers = np.cumsum([0, *(shard.images for shard in plan.shards)])
    before = 0
    for index in order:
        shard = plan.shards[index]
        start, stop = max(begin - before, 0), min(end - before, shard.images)
        if start < stop:
            for position, (name, content, label) in enumerate(
                islice(_samples(shard, plan.classes), start, stop), start
            ):
                yield _Encoded(f"{shard.url}: {name}", int(numbers[index]) + position, content, label)
        before += shard.images


def _scored(view: ImageView, image: _Encoded) -> _Seen:
    try:
        return view.scored(image.content), image.label, image.number, []
    except UnreadableImage as error:
        return None, image.label, image.number, [(image.name, reason(error))]


def _varied(plan: _Plan, buffer: Sequence[_Encoded], index: int) -> _Seen:
    """Return an image of the buffer, or a randomly drawn substitute if it is unreadable."""
    assert plan.epoch is not None
    first = buffer[index]
    image = first
    unreadable: list[tuple[str, str]] = []
    for turn in range(_SUBSTITUTES):
        try:
            return plan.view.varied(image.content, plan.epoch, image.number), image.label, image.number, unreadable
        except UnreadableImage as error:
            unreadable.append((image.name, reason(error)))
        image = buffer[seed_of(_SUBSTITUTE, plan.view.seed, plan.epoch, first.number, turn) % len(buffer)]
    raise ValueError(f"at most 1 % of the images may be unreadable, but {unreadable[0][0]} and many more are")


def _samples(shard: Shard, classes: int) -> Iterator[tuple[str, bytes, int]]:
    """Yield (name, content, label) of every image of a shard. Raises ValueError if the index does not match.

    Args:
        classes: number of classes; 0: the images have no labels, and 0 is yielded.
    """
    count = 0
    for key, sample in _read(shard.url):
        image = next((suffix for suffix in sample if f".{suffix}" in SUFFIXES), None)
        if image is None:
            continue
        count += 1
        name = f"{key}.{image}"
        if not classes:
            yield name, sample[image], 0
            continue
        try:
            label = int(sample["cls"] if "cls" in sample else parse_json(sample["json"])["label"])
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"every image of a shard must have its label in .cls, or as `label` in .json, but got none for {name} "
                f"in {shard.url!r}"
            ) from None
        if not 0 <= label < classes:
            raise ValueError(f"labels must be from 0 to {classes - 1}, but got {label} for {name} in {shard.url!r}")
        yield name, sample[image], label
    if count < shard.images:
        raise ValueError(
            f"a shard must have as many images as its index lists ({shard.images}), but {shard.url!r} has {count}; "
            "write the index again"
        )


def _read(url: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    try:
        yield from samples(url)
    except Exception as error:  # tarfile, gzip and the network raise exceptions without a common class
        raise ValueError(f"a shard must be a complete tar file, but got {url!r} ({reason(error)[:200]})") from None


def _contents(index: ShardIndex) -> Iterator[tuple[str, Content]]:
    """Yield the training images, in the order of the shards."""
    for shard in index.parts["train"]:
        yield from ((name, content) for name, content, _ in _samples(shard, len(index.classes)))


# Writing


def write_shards(
    data: Path | Source, out: Path, images_per_shard: int = 1000, *, seed: int = 0
) -> dict[str, tuple[Path, ...]]:
    """Write a folder of images (or a result of `open_source`) as shards, and return the shards of each part.

    Files are copied unchanged, training images in an order drawn from the seed. The held-out images are those of
    `load_dataset` with this seed. `out` then contains train-000000.tar, ..., `_info.json` and `classes.txt`.

    Raises:
        ValueError: there is nothing to write, `out` is not empty, or the images are not in files.
    """
    if images_per_shard < 1:
        raise ValueError(f"images_per_shard must be 1 or more, but got {images_per_shard}")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"the folder for shards must be new or empty, but got {str(out)!r}; choose another")
    source = data if isinstance(data, Source) else open_source(str(data), data, download=False)
    classes, items = split_parts(source, seed, 0, out)
    out.mkdir(parents=True, exist_ok=True)
    splits: dict[str, Any] = {}
    written: dict[str, tuple[Path, ...]] = {}
    for part, group in items.items():
        ordered = shuffled(group, seed) if part == "train" else group
        starts = range(0, len(ordered), images_per_shard)
        chunks = [ordered[start : start + images_per_shard] for start in starts]
        names = [f"{part}-{number:06d}.tar" for number in range(len(chunks))]
        for name, chunk, start in zip(names, chunks, starts, strict=True):
            write_atomic(out / name, _tar(chunk, start))
        written[part] = tuple(out / name for name in names)
        lengths = list(map(len, chunks))
        splits[part] = {"name": part, "filenames": names, "shard_lengths": lengths, "num_samples": len(ordered)}
    write_atomic(out / CLASSES_NAME, "".join(f"{name}\n" for name in classes))
    write_atomic(out / INFO_NAME, json.dumps({"name": source.name, "splits": splits}, indent=1))
    return written


def _tar(items: Sequence[Item], first: int) -> bytes:
    """Return a shard of NUMBER.jpg and NUMBER.cls; equal images make equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for number, item in enumerate(items, first):
            if not isinstance(item.content, Path):
                raise ValueError(f"shards must be written from image files, but got the pixels of {item.name}")
            files = {item.content.suffix.lower(): item.content.read_bytes(), ".cls": b"%d" % item.label}
            for suffix, content in files.items():
                info = tarfile.TarInfo(f"{number:08d}{suffix}")
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
