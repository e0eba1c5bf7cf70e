"""A data set as the training loops see it: arrays of square images, split once, and how to normalise them."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mnas.counts import class_counts
from mnas.data.listing.class_table import ClassTable, Listing, with_unreadable
from mnas.training_data import TrainingData


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageArrays:
    """One part of a data set."""

    images: npt.NDArray[np.uint8]
    """(N, S, S, 3), RGB; memory-mapped, so that all processes of a machine share one copy."""
    labels: npt.NDArray[np.int64]
    """(N,) indices into the data set's classes."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Train, validation and (where there is one) test images; a search trains on `train` and scores on `val` only."""

    name: str
    """As asked for: `digits`, or the folder's name."""
    classes: tuple[str, ...]
    train: ImageArrays
    val: ImageArrays
    """Held out of the training images, unless the folder brought a part of its own."""
    test: ImageArrays | None
    """Never seen by a search; None where the data has no such part."""
    mean: tuple[float, float, float]
    """Of the training pixels as 0..1, by channel."""
    std: tuple[float, float, float]
    input_size: int
    """Pixels along one side of every image."""
    flip: bool
    """Whether a mirrored image is as good as the original: not so for digits."""
    fingerprint: str
    """16 hexadecimal digits of pixels, labels, classes and split: equal for equal data, wherever it lies."""
    content: str
    """64 hexadecimal digits of the class names, and of the relative names and bytes of all files: equal for
    equal data, whatever the seed, the input size, the place and the times of the files. `stat:` and as many digits of
    names, sizes and times, where only a few images of a set of more than 20 GB are taken."""
    key: str
    """Key of its entry in the cache, 64 hexadecimal digits."""
    skipped: tuple[str, ...]
    """Files that could not be read, each with the reason."""
    training_data: TrainingData | None = None
    """Record of the images for a model that is trained on them; None for toy data."""
    listing: Listing = field(default_factory=Listing)
    """Files left out beside these, and guesses about the layout."""

    @property
    def val_counts(self) -> list[int]:
        """Validation images of each class."""
        return list(class_counts(self.val.labels, len(self.classes)))

    @property
    def table(self) -> ClassTable:
        """Images of each class and part, and what was left out."""
        parts = {"train": self.train, "val": self.val} | ({} if self.test is None else {"test": self.test})
        return ClassTable(
            name=self.name,
            classes=self.classes,
            counts={part: len(arrays) for part, arrays in parts.items()},
            images={part: class_counts(arrays.labels, len(self.classes)) for part, arrays in parts.items()},
            listing=with_unreadable(self.listing, self.skipped, self.classes),
        )
