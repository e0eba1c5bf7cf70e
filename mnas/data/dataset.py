"""A data set for training loops: arrays of square images, split once, with the moments that normalise them."""

from collections.abc import Callable, Mapping, Sequence
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
    """Train, validation and optional test images; a search trains on `train` and scores on `val` only."""

    name: str
    """Name of the data set, such as `digits`, or of its folder."""
    classes: tuple[str, ...]
    train: ImageArrays
    val: ImageArrays
    """Validation images, held out of the training images unless the folder has its own."""
    test: ImageArrays | None
    """Test images, which a search never uses; None if the data has none."""
    mean: tuple[float, float, float]
    """Mean of training pixels in [0, 1], by channel."""
    std: tuple[float, float, float]
    input_size: int
    """Side of every image, in pixels."""
    flip: bool
    """Whether a mirrored image keeps its class; digits do not."""
    fingerprint: str
    """Digest of pixels, labels, classes and split, 16 hexadecimal digits; independent of the location."""
    content: str
    """Digest of class names, and of relative names and bytes of all files, 64 hexadecimal digits; independent of seed,
    input size, location and times. `stat:` and a digest of names, sizes and times if only a few images of a set of more
    than 20 GB are used."""
    key: str
    """Key of the cache entry, 64 hexadecimal digits."""
    skipped: tuple[str, ...]
    """Unreadable files, each with the reason."""
    training_data: TrainingData | None = None
    """Record of the images, for the file of a model that is trained on them; None for toy data."""
    listing: Listing = field(default_factory=Listing)
    """Files omitted besides `skipped`, and guesses about the layout."""
    names: Callable[[], Mapping[str, Sequence[str]]] = dict
    """Function that lists the files again and returns part -> name of each of its images, relative to the data; it
    omits parts without files of their own."""

    @property
    def cached(self) -> tuple[str, str]:
        """Content and key, with which another process opens the cached images (see `mnas.data.load`)."""
        return self.content, self.key

    @property
    def val_counts(self) -> list[int]:
        """Number of validation images of each class."""
        return list(class_counts(self.val.labels, len(self.classes)))

    @property
    def table(self) -> ClassTable:
        """Number of images of each class and part, and the omitted files."""
        parts = {"train": self.train, "val": self.val} | ({} if self.test is None else {"test": self.test})
        return ClassTable(
            name=self.name,
            classes=self.classes,
            counts={part: len(arrays) for part, arrays in parts.items()},
            images={part: class_counts(arrays.labels, len(self.classes)) for part, arrays in parts.items()},
            listing=with_unreadable(self.listing, self.skipped, self.classes),
        )
