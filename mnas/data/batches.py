"""What a training loop reads: batches of uint8 images, the same for every number of workers and after every resume."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from torch import Tensor

from mnas.data.dataset import Dataset
from mnas.data.listing.class_table import ClassTable, Listing, with_unreadable
from mnas.training_data import STAT, TrainingData

Part = Literal["train", "val", "test"]


def unreadable_line(skipped: Sequence[str]) -> str:
    """What people are told of unreadable images: how many, and the first few."""
    more = f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    return f"skipped {len(skipped)} unreadable image{'s' * (len(skipped) != 1)}: {'; '.join(skipped[:5])}{more}"


def by_stat_line(data: "Batches | Dataset") -> str:
    """The notice about data whose content was not read; empty where it was."""
    if not data.content.startswith(STAT):
        return ""
    return f"{data.name} is identified by file names, sizes and times, not by content"


class Batches(ABC):
    """A data set for training at any scale.

    Every draw (order, crops, augmentation) is a function of (seed, epoch, step) or (seed, epoch, image), so that a
    training goes on from any step as if it had never stopped.
    """

    name: str
    """As asked for: `cifar10`, or the folder's name."""
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    """Of pixels as 0..1; with `std` what `mnas.data.augment.normalised` takes."""
    std: tuple[float, float, float]
    input_size: int
    crop: float
    """Share of the side of an image's centre square that `scoring` shows."""
    counts: dict[Part, int]
    """Images of each part that there is; `train` and `val` always."""
    fingerprint: str
    """Equal for equal images, labels, classes and split."""
    content: str
    """Identifies the files, whatever the seed and the input size: `Dataset.content`, or, where images are not decoded
    into the cache, `stat:` and a digest of file names, sizes and times (see `by_stat_line`)."""
    mirrored: bool = True
    """Whether half of the training images are mirrored."""
    may_be_mirrored: bool = True
    """Whether mirrored images of this data set still show their class, class names apart."""
    listing: Listing = Listing()
    """Files left out beside `skipped`, and guesses about the layout."""
    images_by_class: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    """Part -> images of each class; without parts that are not counted before they are read."""

    training_data: TrainingData | None = None
    """Record of the images for a model that is trained on them."""

    @property
    @abstractmethod
    def skipped(self) -> tuple[str, ...]:
        """Images that turned out unreadable so far, each with the reason."""

    @property
    def table(self) -> ClassTable:
        """Images of each class and part, and what was left out so far."""
        return ClassTable(
            name=self.name,
            classes=self.classes,
            counts=dict(self.counts.items()),
            images=dict(self.images_by_class),
            listing=with_unreadable(self.listing, self.skipped, self.classes),
        )

    def steps(self, batch_size: int) -> int:
        """Of an epoch of training; images that fill no batch are left out (others every epoch)."""
        return self.counts["train"] // batch_size

    @abstractmethod
    def training(
        self, epoch: int, batch_size: int, *, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented images and labels of the epoch's steps from `start` on.

        Each is uint8 (B, S, S, 3) and int64 (B,), on the CPU, with B = batch_size / world: what process `rank` of
        `world` is to see of the step's batch_size images. All processes together see the batches that one would.

        Raises:
            ValueError: more than 1 % of the images turn out unreadable.
        """

    @abstractmethod
    def scoring(self, part: Part, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images of `part` in a fixed order, as an evaluation is to see them: uint8 (B, S, S, 3), int64 (B,)."""
