"""Batches of images that worker processes decode on the fly: folders too large for an array, ImageNet."""

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mnas.counts import class_counts
from mnas.data.augment import generator_of, seed_of
from mnas.data.augmentation import Augmentation
from mnas.data.balance import balanced_order
from mnas.data.batches import Batches, Part, pairs
from mnas.data.cache import OnProgress
from mnas.data.content.digests import UNREADABLE, ContentChangedError, changing_files, verified
from mnas.data.image import Item, UnreadableImage, reason
from mnas.data.listing.duplicates import duplicates, file_keys, shown_names
from mnas.data.load import split_parts, training_data
from mnas.data.mirror import mirrors
from mnas.data.moments import SAMPLE_IMAGES, sample_moments
from mnas.data.source import Source, Triple, digests_of
from mnas.data.view import Content, ImageView
from mnas.data.workers import Loaded, Unreadable, loader_options

_ORDER, _SUBSTITUTE, _SAMPLE = 0, 2, 3  # purpose of a seed, its first number; the order is that of arrays.py
_TURNS = 3  # attempts to read files that change meanwhile
_SCORING = -1  # in place of the epoch: no augmentation
_SUBSTITUTES = 10  # draws of a substitute for an unreadable image; with 1 % unreadable, 1 in 1e20 needs more

DIGESTED_BYTES = 8_000_000_000
"""Total size up to which a training records a digest of the files (about 5 s on a core), not only their stats."""

Indices = npt.NDArray[np.int64]


class FolderBatches(Batches):
    """The images of a `Source`, shuffled by (seed, epoch), each augmented by (seed, epoch, image).

    Scoring skips an unreadable image; training replaces it with another, randomly drawn image.

    Args:
        source: result of `mnas.data.load.open_source`.
        seed: seed of the split, the order and the augmentation.
        crop: see `Batches.crop`.
        workers: number of decoding processes, started again for every pass; 0: decode in this process.
        cache_dir: folder for cached mean and deviation, and for the list of ImageNet's validation images.
        max_images_per_class: limit on training images, and on validation images in a part of their own; 0: all.
        on_progress: callback that receives (images done, total images) while mean and deviation are estimated.

    Raises:
        ValueError: an argument is out of range, a class is too small to split, or more than 1 % of the images for the
            estimate of mean and deviation are unreadable.
    """

    def __init__(
        self,
        source: Source,
        *,
        input_size: int,
        seed: int,
        crop: float,
        augmentation: Augmentation,
        workers: int,
        cache_dir: Path,
        max_images_per_class: int = 0,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._options = loader_options(workers)
        self.classes, items = split_parts(source, seed, max_images_per_class, cache_dir)
        self.may_be_mirrored = source.flip
        self.mirrored = mirrors(augmentation.mirror, source.flip, self.classes)
        self._view = ImageView(size=input_size, crop=crop, augmentation=augmentation, flip=self.mirrored, seed=seed)
        self._parts: dict[str, _Images] = {part: _Images(group, self._view) for part, group in items.items()}
        self.counts = {}
        for part in ("train", "val", "test"):
            if part in items:
                self.counts[part] = len(items[part])
        self._unreadable = Unreadable(sum(self.counts.values()))
        self.name, self.input_size, self.crop = source.name, input_size, crop
        self.fingerprint = _fingerprint(self.classes, items)
        self.content = source.content(cache_dir) if source.in_memory else source.by_stat
        self.listing = source.listing.with_notes(*_duplicates(items, self.counts))
        self.images_by_class = {
            part: class_counts([item.label for item in group], len(self.classes)) for part, group in items.items()
        }
        # A model's file is used on other machines, where file times mean nothing.
        small = sum(item.size_bytes for part in items.values() for item in part) <= DIGESTED_BYTES
        content = source.content(cache_dir) if small else self.content
        images = sum(self.counts.values())
        self.training_data = training_data(source, content, images, seed, max_images_per_class)
        if source.moments is None:
            self.mean, self.std = self._moments(cache_dir, on_progress)
        else:
            self.mean, self.std = source.moments

    def _moments(self, cache_dir: Path, on_progress: OnProgress | None) -> tuple[Triple, Triple]:
        train = self._parts["train"]
        for _ in range(_TURNS):
            sample = list(train.sample())
            paths = [str(content) for _, content in sample if isinstance(content, Path)]
            sha256 = digests_of(paths, cache_dir)
            # Names and sizes do not identify files, so the sample's content is part of the key.
            key = [self.fingerprint, *(sha256[path].hex() for path in paths)]
            images = functools.partial(_verified, sample, sha256)
            try:
                return sample_moments(cache_dir, key, self._view, images, len(train), on_progress)
            except ContentChangedError as error:
                changed = error
        raise ValueError(changing_files(changed, _TURNS))

    @property
    def skipped(self) -> tuple[str, ...]:
        return self._unreadable.lines

    def training(
        self, epoch: int, batch_size: int, *, start: int = 0, rank: int = 0, world: int = 1, numbered: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        generator = generator_of(_ORDER, self._view.seed, epoch)
        if self.balanced:
            order = balanced_order(self.train_labels(), generator).numpy()
        else:
            order = torch.randperm(self.counts["train"], generator=generator).numpy()
        share = batch_size // world
        firsts = range(start * batch_size + rank * share, self.steps(batch_size) * batch_size, batch_size)
        chosen = [order[first : first + share] for first in firsts]
        return pairs(self._loaded("train", epoch, chosen), numbered=numbered)

    def numbered(self, part: Part, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        every = np.arange(self.counts[part])
        steps = [every[i : i + batch_size] for i in range(0, len(every), batch_size)]
        return self._loaded(part, _SCORING, steps)

    def image_name(self, part: Part, index: int) -> str:
        return self._parts[part].relative_name(index) or super().image_name(part, index)

    def train_labels(self) -> Tensor:
        return self._parts["train"].labels

    def _loaded(self, part: Part, epoch: int, chosen: Sequence[Indices]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the images of `part` that `chosen` lists for each step, with their labels and indices."""
        labels = self._parts[part].labels
        steps = [(epoch, indices) for indices in chosen]
        loader: DataLoader[Any] = DataLoader(
            self._parts[part],
            sampler=steps,
            **self._options,
        )
        batches = Loaded(loader)
        try:
            for images, indices, unreadable in batches:
                self._unreadable.add(unreadable)
                if len(indices):
                    yield images, labels[indices], indices
        finally:
            batches.close()


class _Images(Dataset[tuple[Tensor, Tensor, list[tuple[str, str]]]]):
    """The images of one part, in arrays: worker processes would gradually copy a million Python objects."""

    def __init__(self, items: Sequence[Item], view: ImageView) -> None:
        self._view = view
        self.labels = torch.tensor([item.label for item in items], dtype=torch.int64)
        self._pixels: npt.NDArray[np.uint8] | None = None
        contents = [item.content for item in items]
        if all(isinstance(content, Path) for content in contents):
            paths = [os.fsencode(content) for content in contents if isinstance(content, Path)]
            self._ends = np.cumsum([len(path) for path in paths])
            self._paths = b"".join(paths)
            self._relative = np.array([len(os.fsencode(item.relative_name)) for item in items], np.uint16)
        else:
            self._pixels = np.stack([content for content in contents if not isinstance(content, Path)])

    def __len__(self) -> int:
        return len(self.labels)

    def content(self, index: int) -> Content:
        """Return the file or pixels to decode."""
        if self._pixels is not None:
            pixels: npt.NDArray[np.uint8] = self._pixels[index]
            return pixels
        start = self._ends[index - 1] if index else 0
        return Path(os.fsdecode(self._paths[start : self._ends[index]]))

    def relative_name(self, index: int) -> str:
        """Return the file's path relative to the data; empty without a file."""
        if self._pixels is not None:
            return ""
        end = self._ends[index]
        return os.fsdecode(self._paths[end - self._relative[index] : end])

    def name(self, index: int) -> str:
        """Return the image's name for messages."""
        content = self.content(index)
        return str(content) if isinstance(content, Path) else f"image {index}"

    def sample(self) -> Iterator[tuple[str, Content]]:
        """Yield (name, content) of some images, always the same ones."""
        order = torch.randperm(len(self), generator=generator_of(_SAMPLE))[:SAMPLE_IMAGES]
        return ((self.name(index), self.content(index)) for index in order.tolist())

    def __getitem__(self, step: tuple[int, Indices]) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
        """Return images, uint8 (B, S, S, 3), their indices (B,), and (name, reason) of each unreadable image.

        Args:
            step: the epoch, and the draws of images: indices, or those of `balanced_order`.
        """
        epoch, indices = step
        size = self._view.size
        images = np.empty((len(indices), size, size, 3), np.uint8)
        seen: list[int] = []
        unreadable: list[tuple[str, str]] = []
        for index in indices.tolist():
            for candidate in self._candidates(epoch, index):
                try:
                    images[len(seen)] = self._seen(epoch, candidate)
                    seen.append(candidate % len(self))
                    break
                except UnreadableImage as error:
                    unreadable.append((self.name(candidate % len(self)), reason(error)))
        return torch.from_numpy(images[: len(seen)]), torch.tensor(seen, dtype=torch.int64), unreadable

    def _seen(self, epoch: int, index: int) -> npt.NDArray[np.uint8]:
        content = self.content(index % len(self))
        return self._view.scored(content) if epoch == _SCORING else self._view.varied(content, epoch, index)

    def _candidates(self, epoch: int, index: int) -> Iterator[int]:
        """Yield the image's index and, in training, those of its substitutes."""
        yield index
        if epoch != _SCORING:
            for turn in range(_SUBSTITUTES):
                yield seed_of(_SUBSTITUTE, self._view.seed, epoch, index, turn) % len(self)


def _duplicates(items: dict[str, Sequence[Item]], counts: Mapping[Part, int]) -> tuple[str, ...]:
    """Return warnings about identical files in several parts or classes."""
    every = [item for part in counts for item in items[part]]
    skipped = "the check for duplicate images was skipped, because"
    if not all(isinstance(item.content, Path) for item in every):
        return (f"{skipped} they are not files of their own",)
    try:
        keys = file_keys(every)
    except OSError:  # it counts as unreadable when it is decoded
        return (f"{skipped} one of them cannot be read",)
    if keys is None:
        return (f"{skipped} there are too many files to compare",)
    copies = duplicates(keys, [item.label for item in every], dict(counts.items()))
    names = shown_names([item.name for item in every])
    return copies.notes(dict(counts.items()), lambda number: names[number])


def _verified(sample: Sequence[tuple[str, Content]], sha256: Mapping[str, bytes]) -> Iterator[tuple[str, Content]]:
    """Yield the sample's images, checked against their digests. Raises ContentChangedError."""
    for name, content in sample:
        if not isinstance(content, Path) or sha256[str(content)] == UNREADABLE:
            yield name, content
        else:
            with verified(str(content), sha256[str(content)]) as file:
                yield name, file.read()


def _fingerprint(classes: Sequence[str], items: dict[str, Sequence[Item]]) -> str:
    """Return a digest of classes, names, file sizes (or pixels) and labels, as decoding all files would take hours."""
    digest = hashlib.sha256(json.dumps(["files", list(classes)]).encode())
    for part, group in items.items():
        digest.update(f"\n{part} {len(group)}\n".encode())
        for item in group:
            content = b"" if isinstance(item.content, Path) else item.content.tobytes()
            digest.update(os.fsencode(f"{item.name}\0{item.size_bytes}\0{item.label}\0") + content)
    return digest.hexdigest()[:16]
