"""The cache of decoded images: built once, atomically, and memory-mapped by every process that uses it.

An entry is a folder `NAME-SIZEpx-KEY/` (see `mnas.data.entry`). Its key is a digest of the decoded files' content:
equal files share an entry in any location, and changed files never do. A builder holds a lock, writes under another
name, and then renames. So a reader never sees a partial entry, and two builders never work at the same time. The next
builder removes the remains of a killed one. Any entry may be deleted at any time.
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
_TASK = 32  # images per call of a thread: a small one takes less time to decode than to hand over
_CHUNK = 32  # tasks in progress before their images are written; bounds the memory
_VERSION = 2  # of the format and the decoder; 1 was keyed by names, sizes and times
OnProgress = Callable[[int, int], None]
"""Callback that receives (images done, total images)."""
Built = tuple[Sequence[str], dict[str, Sequence[Item]]]
"""Classes, and the items of each part, which always include "train"."""


def entry_key(description: object, size: int) -> str:
    """Return the key of an entry, 64 hexadecimal digits.

    Args:
        description: JSON-able; equal descriptions mean equal pixels.
        size: side in pixels.
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
    """Return the entry and its pixels as `find_entry` does; build it from `parts()` if it is missing.

    Args:
        name: start of the folder's name.
        key: see `entry_key`.
        parts: returns the images; called only to build the entry.
        sha256: path -> digest that the file must have when it is decoded, for every file that an item names.
        verify: read the entry in full and compare it with its digests, even if its stats match its seal.

    Raises:
        ValueError: more than 1 % of the images are unreadable, or the cache folder cannot be written.
        ContentChangedError: a file has changed.
    """
    built = find_entry(cache_dir, key, size, verify=verify)
    if built is not None:
        return built
    path = _place(cache_dir, name, key, size)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            built = _open(path, key, size, verify, say=True)  # another process may have built it during the wait
            if built is None:
                temporary = Path(f"{path}.tmp")
                for stale in (temporary, path):  # under the lock, existing files are stale or damaged
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
            f"cannot write to the cache folder {str(cache_dir)!r} ({error.strerror or error}); free some disk space, "
            "or set XDG_CACHE_HOME to another folder"
        ) from None
    assert built is not None
    return built


def _place(cache_dir: Path, name: str, key: str, size: int) -> Path:
    """Return the entry's folder, also under another name, as renaming a folder of images does not change its key."""
    ending = f"-{size}px-{key[:32]}"
    return min(cache_dir.glob(f"*{ending}"), default=cache_dir / f"{name}{ending}")


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it exists."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _open(path: Path, key: str, size: int, verify: bool, *, say: bool) -> tuple[ImageEntry, Pixels] | None:
    """Return the entry and its pixels; None if it is missing or damaged."""
    try:
        return open_entry(path, key, size, verify=verify)
    except ValueError as error:
        if say:
            logging.getLogger(__name__).warning(
                "The cached images in %s are damaged (%s). Decoding the images again.", path, reason(error)
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

    # Threads are enough, as Pillow releases the GIL while it decodes.
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
    """Return the item's pixels, or the reason why it is unreadable. Raises ContentChangedError."""
    try:
        if not isinstance(item.content, Path):
            return item.pixels(size)
        with verified(str(item.content), sha256[str(item.content)]) as file:
            return read_image(file, size, item.crop)
    except (UnreadableImage, OSError) as error:
        return reason(error)


def check_unreadable(skipped: Sequence[str], total: int) -> None:
    """Raise ValueError, naming some, if more than 1 % of `total` images are unreadable."""
    if len(skipped) > MAX_UNREADABLE * total:
        named = "; ".join(skipped[:3]) + (f"; and {len(skipped) - 3} more" if len(skipped) > 3 else "")
        raise ValueError(
            f"at most 1 % of the images may be unreadable, but {len(skipped)} of {total} are ({named}); repair or "
            "delete these files"
        )


def moments(histogram: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of pixels in [0, 1], by channel.

    Args:
        histogram: (3, 256), counts of each pixel value by channel.
    """
    values = np.arange(256) / 255
    share = histogram / histogram.sum(1, keepdims=True)
    mean = share @ values
    variance = share @ values**2 - mean**2
    # A channel without contrast gets a deviation of one grey level, to avoid a division by 0.
    std = np.sqrt(np.maximum(variance, (1 / 255) ** 2))
    return mean.round(6).tolist(), std.round(6).tolist()
