"""Options that choose the images of a command."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mnas.data.cache import OnProgress
from mnas.data.dataset import Dataset
from mnas.data.load import load_sizes
from mnas.data.named import NAMED
from mnas.data.native import count_training, native_size

Loader = Literal["auto", "array", "files", "shards"]
"""Way to read the images of a training (`mnas.data.open_batches`)."""

_HELP = (
    f"Data set: {', '.join(NAMED)}, or a folder that contains a folder of images for each class, directly or inside "
    "train/, val/ and test/."
)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The data set, and its folder, download and cache."""

    data: Annotated[str, Parameter(help=_HELP)]
    """Name or folder of the data set."""
    data_dir: Path | None = None
    """Folder with cifar10, fashion-mnist or imagenet, to which --download writes; by default downloads/ in the cache
    folder (~/.cache/mnas on Linux)."""
    download: bool = False
    """Download cifar10 or fashion-mnist if it is missing."""
    verify_cache: bool = False
    """Check the cached images byte by byte, and decode damaged ones again."""


@dataclass(frozen=True, kw_only=True)
class TrainingDataOptions(DataOptions):
    """The data set that networks are trained on, or some images of each of its classes."""

    max_images_per_class: int = 0
    """Number of training and validation images to use per class; 0: all."""

    def native_size(self) -> int:
        """Return the side of the data set's images in pixels, at most 224."""
        return native_size(self.data)

    def count_training(self, seed: int) -> int:
        """Return the number of training images in the folder with all its images; 0 if it cannot be read."""
        return count_training(self.data, seed)

    def load(
        self,
        *,
        input_size: int,
        seed: int,
        on_progress: OnProgress | None = None,
        cached: tuple[str, str] | None = None,
    ) -> Dataset:
        """Return the images, decoded once and shared by all processes.

        Args:
            cached: content and key of the images as another process has just read them (see `load_dataset`).

        Raises:
            ValueError: see `load_dataset`.
        """
        datasets = self.load_sizes(
            (input_size,),
            seed=seed,
            on_progress=on_progress,
            cached=None if cached is None else {input_size: cached},
        )
        return datasets[input_size]

    def load_sizes(
        self,
        input_sizes: Sequence[int],
        *,
        seed: int,
        on_progress: OnProgress | None = None,
        cached: Mapping[int, tuple[str, str]] | None = None,
    ) -> dict[int, Dataset]:
        """Return for each size the images that `load` returns; missing sizes are decoded together.

        Args:
            input_sizes: sides in pixels, each from 8 to 1024.
            cached: `Dataset.cached` by size, as another process has just read them.

        Raises:
            ValueError: see `mnas.data.load.load_sizes`.
        """
        return load_sizes(
            self.data,
            input_sizes=input_sizes,
            seed=seed,
            data_dir=self.data_dir,
            download=self.download,
            max_images_per_class=self.max_images_per_class,
            on_progress=on_progress,
            cached=cached,
            verify_cache=self.verify_cache and cached is None,
        )
