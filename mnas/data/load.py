"""Load a `Dataset` by name or folder; its images are decoded once per machine."""

import contextlib
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mnas.atomic import write_atomic
from mnas.data.cache import Built, OnProgress, decoded_bytes, entry_key, find_entry, find_or_build, sizes_text
from mnas.data.content.digests import ContentChangedError, changing_files, content_of
from mnas.data.dataset import Dataset, ImageArrays
from mnas.data.entry import ImageEntry
from mnas.data.image import Item, Pixels
from mnas.data.listing.duplicates import Duplicates, cached_duplicates, duplicates, names_of, pixel_keys, unread_names
from mnas.data.listing.folder import folder_source
from mnas.data.listing.given import check_not_ambiguous, data_folder
from mnas.data.named import NAMED
from mnas.data.source import Source, digests_of
from mnas.data.split import at_most, hold_out
from mnas.folders import user_cache_dir
from mnas.labels import check_class_names
from mnas.training_data import TrainingData, printable_name

VAL_SHARE = 0.2
"""Share of training images to hold out; with small data sets the noise of the score limits a search."""
MOST_VAL_IMAGES = 10_000
"""Limit on held-out images, at which the noise is 0.5 points (the paper holds out 50,000 of ImageNet)."""
MOST_DIGESTED = 20_000_000_000
"""Largest data set, in bytes, whose files are all digested although only some images are used (half a minute)."""
_TURNS = 3  # attempts to read files that change meanwhile


def load_dataset(
    data: str,
    *,
    input_size: int,
    seed: int,
    cache_dir: Path | None = None,
    data_dir: Path | None = None,
    download: bool = False,
    max_images_per_class: int = 0,
    max_bytes: int = 8_000_000_000,
    crop: float = 1.0,
    on_progress: OnProgress | None = None,
    cached: tuple[str, str] | None = None,
    verify_cache: bool = False,
) -> Dataset:
    """Return the images of `data` as squares of `input_size` pixels; a second call for equal files only maps them.

    Args:
        data: `digits`, `cifar10`, `fashion-mnist`, `imagenet`, or the path of a folder
            (docs/reference/image-folders.md).
        input_size: side in pixels, from 8 to 1024.
        seed: seed of the choice of validation images, if the data has none of its own.
        cache_dir: folder of the decoded images; None: the user's cache folder.
        data_dir: folder of torchvision's sets; None: `downloads` in the cache folder.
        download: download a missing set (cifar10, fashion-mnist).
        max_images_per_class: limit on training and validation images together; 0: all.
        max_bytes: limit on decoded pixels, in bytes.
        crop: side of the central crop as a share of every image's centre square, as in the model's evaluation.
        on_progress: callback that receives (images decoded, total images) while decoding.
        cached: `Dataset.content` and `Dataset.key` of these images, from another process; if the cache has them, the
            files are not read again.
        verify_cache: read the cached images in full and compare them with their digests.

    Raises:
        ValueError: unknown name; missing or empty folder; fewer than two classes; a class too small to split; more than
            1 % unreadable images; more pixels than `max_bytes`; a missing set; an unreadable folder; an unwritable
            cache; files that change during every attempt to read them.
    """
    datasets = load_sizes(
        data, input_sizes=(input_size,), seed=seed, cache_dir=cache_dir, data_dir=data_dir, download=download,
        max_images_per_class=max_images_per_class, max_bytes=max_bytes, crop=crop, on_progress=on_progress,
        cached=None if cached is None else {input_size: cached}, verify_cache=verify_cache,
    )  # fmt: skip
    return datasets[input_size]


def load_sizes(
    data: str,
    *,
    input_sizes: Sequence[int],
    seed: int,
    cache_dir: Path | None = None,
    data_dir: Path | None = None,
    download: bool = False,
    max_images_per_class: int = 0,
    max_bytes: int = 8_000_000_000,
    crop: float = 1.0,
    on_progress: OnProgress | None = None,
    cached: Mapping[int, tuple[str, str]] | None = None,
    verify_cache: bool = False,
) -> dict[int, Dataset]:
    """Return for each size what `load_dataset` returns for it; missing sizes are decoded together.

    Each size has its own entry in the cache, so that a later call finds it for any choice of sizes.

    Args:
        data: see `load_dataset`, also for the arguments that are not listed here.
        input_sizes: sides in pixels, each from 8 to 1024.
        max_bytes: limit on decoded pixels of all sizes together, in bytes.
        on_progress: callback that receives (images decoded, total images); an image counts once for all sizes.
        cached: `Dataset.cached` by size, from another process; the files are read only for sizes that are not in the
            cache.

    Raises:
        ValueError: see `load_dataset`; or there is no size.
    """
    cache_dir = user_cache_dir() if cache_dir is None else cache_dir
    wanted = _Wanted(
        sizes=tuple(input_sizes), seed=seed, per_class=max_images_per_class, max_bytes=max_bytes, crop=crop,
        cache_dir=cache_dir, verify=verify_cache,
    )  # fmt: skip
    downloads = cache_dir / "downloads" if data_dir is None else data_dir
    return wanted.load(lambda: open_source(data, downloads, download), cached or {}, on_progress)


def load_source(
    source: Source | Callable[[], Source],
    *,
    input_size: int,
    seed: int,
    cache_dir: Path | None = None,
    max_images_per_class: int = 0,
    max_bytes: int = 8_000_000_000,
    crop: float = 1.0,
    on_progress: OnProgress | None = None,
    cached: tuple[str, str] | None = None,
    verify_cache: bool = False,
) -> Dataset:
    """Return the images of `source` as `load_dataset` does; a function is called again if files change meanwhile."""
    wanted = _Wanted(
        sizes=(input_size,), seed=seed, per_class=max_images_per_class, max_bytes=max_bytes, crop=crop,
        cache_dir=user_cache_dir() if cache_dir is None else cache_dir, verify=verify_cache,
    )  # fmt: skip
    opener = (lambda: source) if isinstance(source, Source) else source
    return wanted.load(opener, {} if cached is None else {input_size: cached}, on_progress)[input_size]


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """The arguments of `load_sizes`. Raises ValueError if one is out of range."""

    sizes: tuple[int, ...]
    seed: int
    per_class: int
    max_bytes: int
    crop: float
    cache_dir: Path
    verify: bool

    def __post_init__(self) -> None:
        if not self.sizes:
            raise ValueError("--input-size must have at least one size, but got none")
        for size in self.sizes:
            if type(size) is not int or not 8 <= size <= 1024:
                raise ValueError(f"--input-size must be an integer from 8 to 1024, but got {size!r}")
        if type(self.per_class) is not int or self.per_class < 0:
            raise ValueError(
                f"--max-images-per-class must be an integer of 0 (all) or more, but got {self.per_class!r}"
            )
        if not 0 < self.crop <= 1:
            raise ValueError(f"--crop must be above 0 and at most 1, but got {self.crop!r}")

    def load(
        self, opener: Callable[[], Source], cached: Mapping[int, tuple[str, str]], on_progress: OnProgress | None
    ) -> dict[int, Dataset]:
        """Return the data set of each size. Raises ValueError if files change during every attempt to read them."""
        for _ in range(_TURNS):
            try:
                return self._load(opener(), cached, on_progress)
            except ContentChangedError as error:
                changed = error
        raise ValueError(changing_files(changed, _TURNS))

    def _load(
        self, source: Source, cached: Mapping[int, tuple[str, str]], on_progress: OnProgress | None
    ) -> dict[int, Dataset]:
        """Return the data set of each size. Raises ContentChangedError if files change while they are decoded."""
        datasets: dict[int, Dataset] = {}
        for size in {*self.sizes} & {*cached}:
            opened = find_entry(self.cache_dir, cached[size][1], size, verify=self.verify)
            if opened is not None:
                datasets[size] = _dataset(self, source, *cached[size], *opened)
        missing = [size for size in self.sizes if size not in datasets]
        if missing:
            with _reading(source.name):
                content, keys, sha256 = self._identified(source, missing)
            entries = find_or_build(
                self.cache_dir, re.sub(r"[^A-Za-z0-9._-]", "_", source.name)[:40], keys,
                lambda: self._built(source, content), sha256, on_progress, verify=self.verify,
            )  # fmt: skip
            for size, (entry, pixels) in entries.items():
                notes = self._notes(source, entry, pixels)
                datasets[size] = _dataset(self, source, content, keys[size], entry, pixels, notes)
        return {size: datasets[size] for size in self.sizes}

    def _notes(self, source: Source, entry: ImageEntry, pixels: Pixels) -> tuple[str, ...]:
        """Return warnings about identical images in several parts or classes."""

        def find() -> Duplicates:
            return duplicates(pixel_keys(pixels), entry.labels, entry.counts)

        copies = cached_duplicates(self.cache_dir, entry.fingerprint, find)
        names: Sequence[str] = []
        if copies.in_train or copies.in_two_classes:
            names = names_of(itertools.chain.from_iterable(self._items(source)[1].values()), entry.skipped)
        return copies.notes(entry.counts, lambda number: names[number])

    def names(self, source: Source, entry: ImageEntry) -> Mapping[str, Sequence[str]]:
        """Return part -> name of each readable image, relative to the data; empty if images are no files."""
        if source.in_memory:
            return {}
        with contextlib.suppress(ValueError):  # the files have moved since
            parts = self._items(source)[1]
            unread = unread_names([item.name for items in parts.values() for item in items], entry.skipped)
            return {
                part: [item.relative_name for item in items if item.name not in unread] for part, items in parts.items()
            }
        return {}

    def _identified(self, source: Source, sizes: Sequence[int]) -> tuple[str, dict[int, str], dict[str, bytes]]:
        """Return the content of the source, the key of each size's entry, and the SHA-256 of files by path."""
        if self.per_class and not source.in_memory:  # avoids reading unused images of a large set
            classes, items = self._items(source)
            files = {part: [(f"{i.label}/{i.name}", str(i.content)) for i in chosen] for part, chosen in items.items()}
            sha256 = digests_of([path for listed in files.values() for _, path in listed], self.cache_dir)
            taken = content_of(classes, {p: [(name, sha256[path]) for name, path in f] for p, f in files.items()})
            content = source.content(self.cache_dir) if source.size_bytes() <= MOST_DIGESTED else source.by_stat
        else:
            if not source.in_memory:
                _check_bytes(sum(map(len, source.files().values())), self.sizes, self.max_bytes)
            content, sha256 = source.read_content(self.cache_dir)
            taken = content
        described = {
            "content": taken,
            "split": source.split,
            "seed": 0 if source.fixed_val and not self.per_class else self.seed,
            "images_per_class": self.per_class,
            "crop": self.crop,
        }
        return content, {size: entry_key(described, size) for size in sizes}, sha256

    def _items(self, source: Source) -> Built:
        """Return classes and the items of each part. Raises ValueError if they exceed `max_bytes`."""
        classes, items = split_parts(source, self.seed, self.per_class, self.cache_dir)
        _check_bytes(sum(map(len, items.values())), self.sizes, self.max_bytes)
        if self.crop != 1.0:
            items = {part: [replace(item, crop=self.crop) for item in chosen] for part, chosen in items.items()}
        return classes, items

    def _built(self, source: Source, content: str) -> Built:
        """Return `_items`. Raises ContentChangedError if files of many images have changed."""
        built = self._items(source)
        if source.in_memory:
            with _reading(source.name):
                now = source.content(None)
            if now != content:
                raise ContentChangedError(source.name)
        return built


def _dataset(
    wanted: _Wanted,
    source: Source,
    content: str,
    key: str,
    entry: ImageEntry,
    pixels: Pixels,
    notes: Sequence[str] = (),
) -> Dataset:
    labels = np.array(entry.labels, np.int64)
    arrays = {}
    start = 0
    for part, count in entry.counts.items():
        arrays[part] = ImageArrays(images=pixels[start : start + count], labels=labels[start : start + count])
        start += count
    return Dataset(
        name=source.name,
        classes=entry.classes,
        train=arrays["train"],
        val=arrays["val"],
        test=arrays.get("test"),
        mean=entry.mean,
        std=entry.std,
        input_size=entry.size,
        flip=source.flip,
        fingerprint=entry.fingerprint,
        content=content,
        key=key,
        skipped=entry.skipped,
        listing=source.listing.with_notes(*notes),
        training_data=training_data(source, content, len(labels) + len(entry.skipped), wanted.seed, wanted.per_class),
        names=lambda: wanted.names(source, entry),
    )


def training_data(source: Source, content: str, images: int, seed: int, per_class: int) -> TrainingData:
    """Return the record of a training on `source`, split as `split_parts` does with these arguments."""
    return TrainingData(
        name=printable_name(source.name),
        content=content,
        images=images,
        seed=seed,
        max_images_per_class=per_class,
        held_out=not source.own_val,
    )


def open_source(data: str, data_dir: Path, download: bool, *, needs_train: bool = True) -> Source:
    """Return the source for a name or a folder.

    Args:
        needs_train: see `folder_source`.

    Raises:
        ValueError: the data set or folder does not exist, or cannot be read.
    """
    if data in NAMED:
        with _reading(data_dir):
            note = check_not_ambiguous(data, data_dir)
            source = NAMED[data](data_dir, download)
        return replace(source, listing=source.listing.with_notes(note)) if note else source
    with _reading(data):
        return folder_source(data_folder(data, NAMED), needs_train=needs_train)


def split_parts(
    source: Source, seed: int, per_class: int, cache_dir: Path
) -> tuple[tuple[str, ...], dict[str, Sequence[Item]]]:
    """Return classes, and the items of train, val and, if it exists, test, in this order.

    If the validation images do not depend on the seed, their names are written to the cache folder.

    Args:
        seed: seed of the held-out images, and of the choice within a class.
        per_class: limit on images of each class; 0: all.

    Raises:
        ValueError: a class is too small to split, or a folder cannot be read.
    """
    with _reading(source.name):
        given = source.parts()
    check_class_names(given.classes, source.name)
    train: Sequence[Item] = at_most(given.train, given.classes, per_class, seed)
    if given.val is None:
        train, val = hold_out(train, given.classes, VAL_SHARE, MOST_VAL_IMAGES, seed)
    else:
        val = at_most(given.val, given.classes, per_class, seed)
        if source.fixed_val:
            with contextlib.suppress(OSError):  # the list can be recreated at any time
                keep_list(cache_dir, source.name, given.val)
    return given.classes, {"train": train, "val": val} | ({} if given.test is None else {"test": given.test})


def keep_list(folder: Path, name: str, items: Sequence[Item]) -> Path:
    """Write the names of validation images to a file in `folder`, unless it exists, and return its path.

    The first line holds their number and the SHA-256 of the following lines, which is also in the file's name.
    """
    names = "".join(f"{item.name}\n" for item in sorted(items, key=lambda item: item.name))
    digest = hashlib.sha256(os.fsencode(names)).hexdigest()
    path = folder / f"{name}-val-{digest[:16]}.txt"
    head = f"# {len(items)} validation images held out of {name}; SHA-256 of the lines below: {digest}\n"
    content = os.fsencode(head + names)
    if not path.exists() or path.read_bytes() != content:  # absent, or damaged
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    return path


@contextlib.contextmanager
def _reading(what: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = str(what if error.filename is None else error.filename)
        raise ValueError(
            f"cannot read {where!r} ({error.strerror or error}); check its permissions and the disk"
        ) from None


def _check_bytes(images: int, sizes: Sequence[int], max_bytes: int) -> None:
    size_bytes = decoded_bytes(images, sizes)
    if size_bytes > max_bytes:
        smaller = "a smaller --input-size" if len(sizes) == 1 else "fewer or smaller sizes in --input-size,"
        raise ValueError(
            f"decoded images must take at most {max_bytes / 1e9:g} GB, but they take {size_bytes / 1e9:.1f} GB at "
            f"{sizes_text(sizes)}; use {smaller} or --max-images-per-class"
        )
