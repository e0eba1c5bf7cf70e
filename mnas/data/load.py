"""`load_dataset`: a name or a folder becomes a `Dataset`, decoded once per machine."""

import contextlib
import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mnas.atomic import write_atomic
from mnas.data.cache import OnProgress, cached
from mnas.data.dataset import Dataset, ImageArrays
from mnas.data.image import Item
from mnas.data.listing.duplicates import duplicates, names_of, pixel_keys, remembered
from mnas.data.listing.folder import folder_source
from mnas.data.listing.given import check_not_ambiguous, data_folder
from mnas.data.named import NAMED
from mnas.data.source import Source
from mnas.data.split import at_most, hold_out
from mnas.folders import user_cache_dir
from mnas.labels import check_class_names
from mnas.training_data import TrainingData, printable_name

VAL_SHARE = 0.2
"""Of the training images; a fifth, because with few of them the noise of the score is what limits a search ..."""
MOST_VAL_IMAGES = 10_000
"""... and no more than these, where it is 0.5 points (the paper holds out 50,000 of ImageNet)."""


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
) -> Dataset:
    """The images of `data` as squares of `input_size` pixels; the second call for equal files only maps them.

    Args:
        data: `digits`, `cifar10`, `fashion-mnist`, `imagenet`, or the path of a folder (docs/data.md).
        input_size: pixels along one side, from 8 to 1024.
        seed: draws which training images are held out for validation where the data does not say.
        cache_dir: where the decoded images are kept; None for the user's cache folder.
        data_dir: where torchvision's sets lie; None for `downloads` in the cache folder.
        download: fetch a set that is not there (cifar10, fashion-mnist).
        max_images_per_class: of the training and validation images together; 0 for all.
        max_bytes: of decoded pixels.
        crop: share of the side of every image's centre square that is kept; what a model was evaluated with.
        on_progress: called with (images decoded, images in all) while decoding.

    Raises:
        ValueError: unknown name; missing or empty folder; fewer than two classes; a class too small to split; more than
            1 % unreadable images; more pixels than `max_bytes`; a set that is not there; a folder that cannot be read;
            an unwritable cache.
    """
    cache_dir = user_cache_dir() if cache_dir is None else cache_dir
    return load_source(
        open_source(data, cache_dir / "downloads" if data_dir is None else data_dir, download),
        input_size=input_size,
        seed=seed,
        cache_dir=cache_dir,
        max_images_per_class=max_images_per_class,
        max_bytes=max_bytes,
        crop=crop,
        on_progress=on_progress,
    )


def load_source(
    source: Source,
    *,
    input_size: int,
    seed: int,
    cache_dir: Path | None = None,
    max_images_per_class: int = 0,
    max_bytes: int = 8_000_000_000,
    crop: float = 1.0,
    on_progress: OnProgress | None = None,
) -> Dataset:
    """As `load_dataset`, of a source that is open."""
    if type(input_size) is not int or not 8 <= input_size <= 1024:
        raise ValueError(f"input size must be an integer from 8 to 1024, but got {input_size!r}")
    if type(max_images_per_class) is not int or max_images_per_class < 0:
        raise ValueError(f"max images per class must be 0 (all) or more, but got {max_images_per_class!r}")
    if not 0 < crop <= 1:
        raise ValueError(f"crop must be above 0 and at most 1, but got {crop!r}")
    cache_dir = user_cache_dir() if cache_dir is None else cache_dir

    def parts() -> tuple[Sequence[str], dict[str, Sequence[Item]]]:
        classes, items = split_parts(source, seed, max_images_per_class, cache_dir)
        _check_bytes(items, input_size, max_bytes)
        if crop != 1.0:
            items = {part: [replace(item, crop=crop) for item in chosen] for part, chosen in items.items()}
        return classes, items

    # without a crop the key is that of caches that were made before there were crops
    split_seed = 0 if source.fixed_val and not max_images_per_class else seed
    key = [source.identity, split_seed, max_images_per_class, *([crop] if crop != 1.0 else [])]
    safe_name = re.sub(r"[^A-Za-z0-9._-]", "_", source.name)[:40]
    entry, pixels = cached(cache_dir, safe_name, key, input_size, parts, on_progress)
    with _reading(source.name):
        content = source.content()
    labels = np.array(entry.labels, np.int64)
    arrays = {}
    start = 0
    for part, count in entry.counts.items():
        arrays[part] = ImageArrays(images=pixels[start : start + count], labels=labels[start : start + count])
        start += count
    known = remembered(cache_dir, entry.fingerprint, lambda: duplicates(pixel_keys(pixels), entry.labels, entry.counts))
    names: Sequence[str] = []
    if known.in_train or known.in_two_classes:
        names = names_of(itertools.chain.from_iterable(parts()[1].values()), entry.skipped)
    images = len(labels) + len(entry.skipped)
    return Dataset(
        name=source.name,
        classes=entry.classes,
        train=arrays["train"],
        val=arrays["val"],
        test=arrays.get("test"),
        mean=entry.mean,
        std=entry.std,
        input_size=input_size,
        flip=source.flip,
        fingerprint=entry.fingerprint,
        content=content,
        skipped=entry.skipped,
        listing=source.listing.with_notes(*known.notes(entry.counts, lambda number: names[number])),
        training_data=training_data(source, content, images, seed, max_images_per_class),
    )


def training_data(source: Source, content: str, images: int, seed: int, per_class: int) -> TrainingData:
    """Return what a model says that is trained on `source`, split as `split_parts` does with these arguments."""
    return TrainingData(
        name=printable_name(source.name),
        content=content,
        images=images,
        seed=seed,
        max_images_per_class=per_class,
        held_out=not source.own_val,
    )


def open_source(data: str, data_dir: Path, download: bool, *, needs_train: bool = True) -> Source:
    """The data set of a name or a folder.

    Args:
        needs_train: see `folder_source`.

    Raises:
        ValueError: there is none, or it cannot be read.
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
    """Classes, and the items of train, val and (where there is one) test, in this order.

    Where the validation images are the same for everyone, their names are written to the cache folder.

    Args:
        seed: draws what is held out, and what of a class is taken.
        per_class: images of each class; 0 for all.

    Raises:
        ValueError: a class too small to split, or a folder that cannot be read.
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
            with contextlib.suppress(OSError):  # the list can be made again at any time
                keep_list(cache_dir, source.name, given.val)
    return given.classes, {"train": train, "val": val} | ({} if given.test is None else {"test": given.test})


def keep_list(folder: Path, name: str, items: Sequence[Item]) -> Path:
    """Write the names of validation images to `folder`, where they are not there yet, and return the file.

    The first line says how many and the SHA-256 of the lines that follow; the file is named after it.
    """
    names = "".join(f"{item.name}\n" for item in sorted(items, key=lambda item: item.name))
    digest = hashlib.sha256(os.fsencode(names)).hexdigest()
    path = folder / f"{name}-val-{digest[:16]}.txt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        head = f"# {len(items)} validation images held out of {name}; SHA-256 of the lines below: {digest}\n"
        write_atomic(path, os.fsencode(head + names))
    return path


@contextlib.contextmanager
def _reading(what: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = str(what if error.filename is None else error.filename)
        raise ValueError(
            f"data must be readable, but got {where!r} ({error.strerror or error}); see to its permissions and its disk"
        ) from None


def _check_bytes(parts: dict[str, Sequence[Item]], size: int, max_bytes: int) -> None:
    size_bytes = sum(map(len, parts.values())) * size * size * 3
    if size_bytes > max_bytes:
        raise ValueError(
            f"decoded images must fit into {max_bytes / 1e9:g} GB, but got {size_bytes / 1e9:.1f} GB at {size} px; "
            "use a smaller --input-size or --max-images-per-class"
        )
