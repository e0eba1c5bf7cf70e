"""Batches of uint8 images for training, identical for any number of workers and after any resume."""

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
    """Return the notice about unreadable images: their number and the first few."""
    more = f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    return f"skipped {len(skipped)} unreadable image{'s' * (len(skipped) != 1)}: {'; '.join(skipped[:5])}{more}"


def by_stat_line(data: "Batches | Dataset") -> str:
    """Return the notice about data whose content was not read; empty if it was read."""
    if not data.content.startswith(STAT):
        return ""
    return f"{data.name} is identified by file names, sizes and modification times instead of its content"


def pairs(batches: Iterator[tuple[Tensor, Tensor, Tensor]], *, numbered: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the images of each triple (images, labels, indices) with the labels, or with the indices if `numbered`."""
    for images, labels, indices in batches:
        yield images, indices if numbered else labels


class Batches(ABC):
    """A data set for training at any scale.

    Every draw (order, crops, augmentation) is a function of (seed, epoch, step) or (seed, epoch, image), so a resumed
    training continues from any step as if it had never stopped.
    """

    name: str
    """Name of the data set, such as `cifar10`, or of its folder."""
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    """Mean of pixels in [0, 1], by channel; `mnas.data.augment.normalised` takes it and `std`."""
    std: tuple[float, float, float]
    input_size: int
    crop: float
    """Side of the view in `scoring`, as a share of an image's centre square."""
    counts: dict[Part, int]
    """Number of images in each existing part; always includes `train` and `val`."""
    fingerprint: str
    """Digest that is equal for equal images, labels, classes and split."""
    content: str
    """Digest of the files, independent of seed and input size: `Dataset.content`, or, if images are not decoded into
    the cache, `stat:` and a digest of file names, sizes and times (see `by_stat_line`)."""
    mirrored: bool = True
    """Whether half of the training images are mirrored."""
    may_be_mirrored: bool = True
    """Whether mirrored images of this data set keep their class; class names are not considered."""
    balanced: bool = False
    """Whether training shows all classes equally often; the labels must be known (`train_labels`)."""
    listing: Listing = Listing()
    """Files omitted besides `skipped`, and guesses about the layout."""
    images_by_class: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    """Part -> number of images of each class; omits parts whose images cannot be counted before reading them."""

    training_data: TrainingData | None = None
    """Record of the images, for the file of a model that is trained on them."""

    @property
    @abstractmethod
    def skipped(self) -> tuple[str, ...]:
        """Images found unreadable so far, each with the reason."""

    @property
    def table(self) -> ClassTable:
        """Number of images of each class and part, and the files omitted so far."""
        return ClassTable(
            name=self.name,
            classes=self.classes,
            counts=dict(self.counts.items()),
            images=dict(self.images_by_class),
            listing=with_unreadable(self.listing, self.skipped, self.classes),
        )

    def steps(self, batch_size: int) -> int:
        """Return the number of training steps per epoch; each epoch drops its own incomplete last batch."""
        return self.counts["train"] // batch_size

    @abstractmethod
    def training(
        self, epoch: int, batch_size: int, *, start: int = 0, rank: int = 0, world: int = 1, numbered: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield augmented images and labels of the epoch's steps from `start` on.

        Each pair is uint8 (B, S, S, 3) and int64 (B,), on the CPU, with B = batch_size / world: the share of process
        `rank` of `world` in the step's batch_size images. All shares together are the batch of a single process.

        Args:
            numbered: yield the index of each image among the training images in place of its label.

        Raises:
            ValueError: more than 1 % of the images are unreadable.
        """

    @abstractmethod
    def numbered(self, part: Part, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield all images of `part` for evaluation, in a fixed order.

        Each triple has images, uint8 (B, S, S, 3), labels, int64 (B,), and the index of each image in the part, int64
        (B,).
        """

    def scoring(self, part: Part, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images and labels of `numbered`."""
        return pairs(self.numbered(part, batch_size), numbered=False)

    def image_name(self, part: Part, index: int) -> str:
        """Return the name of an image for people: its path relative to the data, else its part and index."""
        return f"{part} image {index}"

    def train_labels(self) -> Tensor:
        """Return the label of each training image by its index, int64 (N,). Raises ValueError for tar shards."""
        raise ValueError("--teacher and --balance need images in files or arrays, but --data contains tar shards")
