"""Open the batches of a training by the name of the data and the loader."""

from pathlib import Path
from typing import get_args

from mnas.data.arrays import ArrayBatches
from mnas.data.augmentation import Augmentation
from mnas.data.batches import Batches
from mnas.data.cache import OnProgress
from mnas.data.files import FolderBatches
from mnas.data.listing.unlabelled import unlabelled_source
from mnas.data.load import load_source, open_source
from mnas.data.options import Loader
from mnas.data.shards import ShardBatches
from mnas.data.shards.index import is_shards, is_unlabelled_shards, read_unlabelled
from mnas.data.source import Source
from mnas.folders import user_cache_dir

MOST_ARRAY_BYTES = 2_000_000_000
"""Largest decoded size, in bytes, that `auto` reads as arrays: it stays in the page cache of most machines."""
MOST_ENLARGED = 64
"""Input size, in pixels, up to which `auto` takes `inception` crops from decoded squares; above it, the detail of the
photograph that a square has lost matters."""


def open_batches(
    data: str,
    *,
    input_size: int,
    seed: int,
    crop: float,
    augmentation: Augmentation,
    loader: Loader,
    workers: int,
    data_dir: Path | None = None,
    download: bool = False,
    max_images_per_class: int = 0,
    on_progress: OnProgress | None = None,
    cache_dir: Path | None = None,
    cached: tuple[str, str] | None = None,
    verify_cache: bool = False,
    unlabelled: bool = False,
) -> Batches:
    """Return the images of `data` in batches.

    Args:
        data: a name or folder for `load_dataset`, or tar shards for `ShardBatches`.
        seed: seed of the split, the order and the augmentation.
        crop: see `Batches.crop`.
        loader: `array`, `files` or `shards`; `auto`: shards for tar files, arrays if the decoded squares take at most
            2 GB and lose no detail that the augmentation or the crop needs, else files.
        workers: number of processes that decode files and shards.
        data_dir: see `load_dataset`.
        download: see `load_dataset`.
        max_images_per_class: see `load_dataset`; not for shards.
        on_progress: callback that receives (images done, total images) while images are decoded before the training.
        cache_dir: folder of the cache; None: the user's cache folder.
        cached: see `load_dataset`; only for arrays.
        verify_cache: see `load_dataset`.
        unlabelled: read all images below the folder `data`, or in its tar shards, as the training part of a data set
            with one class; `array` and `files` then do not apply to shards.

    Raises:
        ValueError: see `load_dataset`, `FolderBatches` and `ShardBatches`; or the loader cannot read such data.
        ImportError: the data are shards and webdataset is not installed.
    """
    if loader not in get_args(Loader):
        raise ValueError(f"--loader must be one of {', '.join(get_args(Loader))}, but got {loader!r}")
    in_tars = is_unlabelled_shards(data) if unlabelled else is_shards(data)
    if in_tars != (loader == "shards") and loader != "auto" and not unlabelled:
        given = "tar shards" if in_tars else "no tar shards"
        raise ValueError(f"--loader {loader} does not fit the data: {data!r} contains {given}; use --loader auto")
    cache_dir = user_cache_dir() if cache_dir is None else cache_dir
    if in_tars:
        if max_images_per_class:
            raise ValueError(
                f"--max-images-per-class must be 0 for shards, but got {max_images_per_class}; write shards with fewer "
                "images"
            )
        return ShardBatches(
            read_unlabelled(data) if unlabelled else data, input_size=input_size, seed=seed, crop=crop,
            augmentation=augmentation, workers=workers, cache_dir=cache_dir, on_progress=on_progress,
        )  # fmt: skip
    downloads = cache_dir / "downloads" if data_dir is None else data_dir

    def opened() -> Source:
        return unlabelled_source(Path(data)) if unlabelled else open_source(data, downloads, download)

    source = None if loader == "array" else opened()
    if source is None or (loader == "auto" and _fits_array(source, input_size, crop, augmentation)):
        dataset = load_source(
            opened, input_size=input_size, seed=seed, cache_dir=cache_dir, max_images_per_class=max_images_per_class,
            on_progress=on_progress, cached=cached, verify_cache=verify_cache,
        )  # fmt: skip
        return ArrayBatches(dataset, augmentation, seed, crop)
    return FolderBatches(
        source, input_size=input_size, seed=seed, crop=crop, augmentation=augmentation, workers=workers,
        cache_dir=cache_dir, max_images_per_class=max_images_per_class, on_progress=on_progress,
    )  # fmt: skip


def _fits_array(source: Source, size: int, crop: float, augmentation: Augmentation) -> bool:
    if crop != 1 or augmentation.auto_augment or (augmentation.kind == "inception" and size > MOST_ENLARGED):
        return False
    parts = source.parts()
    images = sum(len(part) for part in (parts.train, parts.val, parts.test) if part is not None)
    return images * size * size * 3 <= MOST_ARRAY_BYTES
