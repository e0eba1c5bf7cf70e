"""Batches of a data set that is decoded into memory-mapped arrays: a gather and an augmentation for each batch."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mnas.data.augment import augment, erase, generator_of, random_resized_crops
from mnas.data.augmentation import Augmentation
from mnas.data.balance import balanced_order
from mnas.data.batches import Batches, Part
from mnas.data.dataset import Dataset, ImageArrays
from mnas.data.mirror import mirrors

_ORDER, _VARIATION = 0, 1  # purpose of a generator, the first number of its seed


class ArrayBatches(Batches):
    """The images of a `Dataset`, shuffled by (seed, epoch) and augmented by (seed, epoch, step).

    Raises ValueError for options that arrays cannot serve: a timm policy, or a crop smaller than the centre square.
    """

    def __init__(self, dataset: Dataset, augmentation: Augmentation, seed: int, crop: float = 1.0) -> None:
        if augmentation.auto_augment:
            raise ValueError(
                f"--loader array does not take --auto-augment, but got {augmentation.auto_augment!r}; use --loader "
                "files"
            )
        if crop != 1:
            raise ValueError(f"--loader array takes only --crop 1, but got {crop}; use --crop 1 or --loader files")
        self._dataset, self._augmentation, self._seed = dataset, augmentation, seed
        self._parts: dict[Part, ImageArrays] = {"train": dataset.train, "val": dataset.val}
        if dataset.test is not None:
            self._parts["test"] = dataset.test
        self.name, self.classes = dataset.name, dataset.classes
        self.mean, self.std = dataset.mean, dataset.std
        self.input_size, self.crop = dataset.input_size, crop
        self.counts = {part: len(arrays) for part, arrays in self._parts.items()}
        self.fingerprint, self.content = dataset.fingerprint, dataset.content
        self.listing, self.images_by_class = dataset.listing, dataset.table.images
        self.may_be_mirrored = dataset.flip
        self.mirrored = mirrors(augmentation.mirror, dataset.flip, dataset.classes)
        self.training_data = dataset.training_data
        self.cached = dataset.cached
        """Content and key of the images, for other processes that open them (see `load_dataset`)."""
        self._names: Mapping[str, Sequence[str]] | None = None

    @property
    def skipped(self) -> tuple[str, ...]:
        return self._dataset.skipped

    def training(
        self, epoch: int, batch_size: int, *, start: int = 0, rank: int = 0, world: int = 1, numbered: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = _tensors(self._dataset.train)
        generator = generator_of(_ORDER, self._seed, epoch)
        if self.balanced:
            order = balanced_order(labels, generator) % len(labels)
        else:
            order = torch.randperm(len(labels), generator=generator)
        share = batch_size // world
        rows = slice(rank * share, (rank + 1) * share)
        for step in range(start, self.steps(batch_size)):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            generator = generator_of(_VARIATION, self._seed, epoch, step)
            yield self._varied(images, chosen, generator, rows), chosen[rows] if numbered else labels[chosen[rows]]

    def numbered(self, part: Part, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        images, labels = _tensors(self._parts[part])
        for start in range(0, len(labels), batch_size):
            rows = slice(start, min(start + batch_size, len(labels)))
            yield images[rows], labels[rows], torch.arange(rows.start, rows.stop)

    def image_name(self, part: Part, index: int) -> str:
        if self._names is None:
            self._names = self._dataset.names()
        names = self._names.get(part, ())
        return names[index] if len(names) == self.counts[part] else super().image_name(part, index)

    def train_labels(self) -> Tensor:
        return torch.from_numpy(self._dataset.train.labels)

    def _varied(self, images: Tensor, chosen: Tensor, generator: torch.Generator, rows: slice) -> Tensor:
        flip, how = self.mirrored, self._augmentation
        if how.kind == "shift":
            pixels = augment(images, chosen, generator, padding=self.input_size // 16, flip=flip, rows=rows)
        else:
            pixels = random_resized_crops(images, chosen, generator, scale_low=how.scale_low, flip=flip, rows=rows)
        return erase(pixels, how.random_erasing, generator, rows=rows) if how.random_erasing else pixels


def _tensors(part: ImageArrays) -> tuple[Tensor, Tensor]:
    """Return images and labels as tensors, without a copy."""
    return torch.from_numpy(part.images), torch.from_numpy(part.labels)
