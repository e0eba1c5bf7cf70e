"""Decoded images on disk: built once, whole or absent, mapped into memory by every process that asks.

An entry is a folder `NAME-SIZEpx-KEY/` (see `mnas.data.entry`). Its key is of the content of the files that it was
decoded from: equal files share an entry wherever they lie, and changed files never do. It is written under another name
while a lock is held and then renamed, so a reader never sees a part, two builders never work at once, and what a killed
builder leaves behind is removed by the next one. Any entry may be deleted at any time.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from mnas.data.content.digests import verified
from mnas.data.entry import IMAGES, ImageEntry, PixelDigest, open_entry, seal, synced
from mnas.data.image import Item, Pixels, UnreadableImage, read_image, reason

MAX_UNREADABLE = 0.01
_TASK = 32  # images decoded by one thread in one go: small ones take less time than handing them over
_CHUNK = 32  # tasks under way before their images are written; bounds the memory
_VERSION = 2  # of this format and of the decoding; 1 was keyed by names, sizes and times
OnProgress = Callable[[int, int], None]
"""Called with (images done, images in all)."""
Built = tuple[Sequence[str], dict[str, Sequence[Item]]]
"""Classes, and the items of each part ("train" among them)."""


def entry_key(description: object, size: int) -> str:
    """Return the key of an entry, 64 hexadecimal digits.

    Args:
        description: JSON-able; equal descriptions mean equal pixels.
        size: pixels along one side.
    """
    return hashlib.sha256(json.dumps([_VERSION, description, size], sort_keys=True).encode()).hexdigest()


def find_entry(cache_dir: Path, key: str, size: int, *, verify: bool = False) -> tuple[ImageEntry, Pixels] | None:
    """Return the entry of `key` and its pixels, memory-mapped (N, size, size, 3); None if absent or damaged."""
    path = _place(cache_dir, "", key, size)
    return _open(path, key, size, verify, say=False)


def find_or_build(
    cache_dir: Path,
    name: str,
    key: str,
    size: int,
    parts: Callable[[], Built],
    sha256: Mapping[str, bytes],
    on_progress: OnProgress | None,
    *,
    verify: bool = False,
) -> tuple[ImageEntry, Pixels]:
    """Return the entry and its pixels as `find_entry` does; build it from `parts()` where it is missing.

    Args:
        name: for the folder's name.
        key: see `entry_key`.
        parts: only called to build.
        sha256: of every file that an item names, by its path; what is decoded must have this digest.
        verify: read an entry in full and compare it with its digests, even where its stats are those of its seal.

    Raises:
        ValueError: more than 1 % of the images are unreadable, or the cache folder cannot be written.
        ContentChangedError: a file is another one by now.
    """
    built = find_entry(cache_dir, key, size, verify=verify)
    if built is not None:
        return built
    path = _place(cache_dir, name, key, size)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            built = _open(path, key, size, verify, say=True)  # another process may have built it while we waited
            if built is None:
                temporary = Path(f"{path}.tmp")
                for stale in (temporary, path):  # nobody else holds the lock: what is there is dead or damaged
                    _remove(stale)
                temporary.mkdir()
                try:
                    _build(temporary, key, size, *parts(), sha256, on_progress)
                    temporary.rename(path)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
                built = _open(path, key, size, False, say=True)
    except OSError as error:
        raise ValueError(
            f"the cache folder must be writable and have room, but got {str(cache_dir)!r} ({error.strerror or error}); "
            "free some space or set XDG_CACHE_HOME"
        ) from None
    assert built is not None
    return built


def _place(cache_dir: Path, name: str, key: str, size: int) -> Path:
    """Return the entry's folder, under any name: renaming a folder of images does not change its key."""
    ending = f"-{size}px-{key[:32]}"
    return min(cache_dir.glob(f"*{ending}"), default=cache_dir / f"{name}{ending}")


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _open(path: Path, key: str, size: int, verify: bool, *, say: bool) -> tuple[ImageEntry, Pixels] | None:
    """The entry, or None where there is none, or one that is damaged."""
    try:
        return open_entry(path, key, size, verify=verify)
    except ValueError as error:
        if say:
            logging.getLogger(__name__).warning(
                "the decoded images in %s are damaged (%s); decoding them again", path, reason(error)
            )
        return None


def _build(
    folder: Path,
    key: str,
    size: int,
    classes: Sequence[str],
    parts: dict[str, Sequence[Item]],
    sha256: Mapping[str, bytes],
    on_progress: OnProgress | None,
) -> None:
    total = sum(map(len, parts.values()))
    labels: list[int] = []
    counts: dict[str, int] = {}
    skipped: list[str] = []
    digest = PixelDigest(classes)
    histogram = np.zeros((3, 256), np.int64)

    def decode(task: Sequence[Item]) -> list[Pixels | str]:
        return [_pixels(item, size, sha256) for item in task]

    # threads: Pillow gives the lock away while it decodes
    with (folder / IMAGES).open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        for part, items in parts.items():
            before, done = len(labels), len(labels) + len(skipped)
            for start in range(0, len(items), _CHUNK * _TASK):
                chunk = items[start : start + _CHUNK * _TASK]
                tasks = [chunk[i : i + _TASK] for i in range(0, len(chunk), _TASK)]
                for task, rows in zip(tasks, pool.map(decode, tasks), strict=True):
                    read = [row for row in rows if not isinstance(row, str)]
                    labels += (item.label for item, row in zip(task, rows, strict=True) if not isinstance(row, str))
                    skipped += (f"{i.name}: {row}" for i, row in zip(task, rows, strict=True) if isinstance(row, str))
                    if read:
                        pixels = np.stack(read)
                        file.write(pixels.tobytes())
                        digest.add(pixels.tobytes())
                        if part == "train":
                            histogram += [np.bincount(pixels[..., c].ravel(), minlength=256) for c in range(3)]
                if on_progress:
                    on_progress(done + start + len(chunk), total)
            counts[part] = len(labels) - before
        synced(file)
    check_unreadable(skipped, total)
    content = digest.result(labels, counts)
    mean, std = moments(histogram)
    ImageEntry(
        key=key, size=size, classes=tuple(classes), counts=counts, labels=tuple(labels), mean=_triple(mean),
        std=_triple(std), fingerprint=content[:16], skipped=tuple(skipped),
    ).write(folder)  # fmt: skip
    seal(folder, content)


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third


def _pixels(item: Item, size: int, sha256: Mapping[str, bytes]) -> Pixels | str:
    """The item's pixels, or why it has none. Raises ContentChangedError."""
    try:
        if not isinstance(item.content, Path):
            return item.pixels(size)
        with verified(str(item.content), sha256[str(item.content)]) as file:
            return read_image(file, size, item.crop)
    except (UnreadableImage, OSError) as error:
        return reason(error)


def check_unreadable(skipped: Sequence[str], total: int) -> None:
    """Raise ValueError where more than 1 % of `total` images are among the unreadable ones, some of which it names."""
    if len(skipped) > MAX_UNREADABLE * total:
        named = "; ".join(skipped[:3]) + (f"; and {len(skipped) - 3} more" if len(skipped) > 3 else "")
        raise ValueError(
            f"at most 1 % of the images may be unreadable, but got {len(skipped)} of {total}: {named}; "
            "repair or delete them"
        )


def moments(histogram: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation by channel of pixels as 0..1, from how often each of the 256 values occurs.

    Args:
        histogram: (3, 256).
    """
    values = np.arange(256) / 255
    share = histogram / histogram.sum(1, keepdims=True)
    mean = share @ values
    variance = share @ values**2 - mean**2
    # a channel without any contrast is left as it is, one grey level wide, instead of divided by nothing
    std = np.sqrt(np.maximum(variance, (1 / 255) ** 2))
    return mean.round(6).tolist(), std.round(6).tolist()
