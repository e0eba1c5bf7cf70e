"""Decoded images on disk: built once, whole or absent, mapped into memory by every process that asks.

An entry is a folder `NAME-KEY/` of `images.u8` (raw pixels) and `index.json`. It is written under another name while a
lock is held and then renamed, so a reader never sees a part, two builders never work at once, and what a killed builder
leaves behind is removed by the next one. Any entry may be deleted at any time.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock

from mnas.data.image import Item, Pixels, UnreadableImage, reason

MAX_UNREADABLE = 0.01
_TASK = 32  # images decoded by one thread in one go: small ones take less time than handing them over
_CHUNK = 32  # tasks under way before their images are written; bounds the memory
OnProgress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What `index.json` says of an entry."""

    size: int
    classes: tuple[str, ...]
    counts: dict[str, int]
    """Images of each part, in the order in which they lie in `images.u8`."""
    labels: tuple[int, ...]
    """Of all parts, in that order."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fingerprint: str
    skipped: tuple[str, ...]


def cached(
    cache_dir: Path,
    name: str,
    key: object,
    size: int,
    parts: Callable[[], tuple[Sequence[str], dict[str, Sequence[Item]]]],
    on_progress: OnProgress | None,
) -> tuple[Entry, Pixels]:
    """The entry of `key` and its pixels, memory-mapped (N, size, size, 3); built from `parts()` where it is not there.

    Args:
        key: JSON-able; equal keys mean equal pixels.
        parts: classes, and the items of each part ("train" among them); only called to build.

    Raises:
        ValueError: more than 1 % of the images are unreadable, or the cache folder cannot be written.
    """
    text = json.dumps([1, key, size], sort_keys=True)  # 1: the version of this format and of the decoding
    path = cache_dir / f"{name}-{size}px-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    found = _open(path)
    if found is not None:
        return found
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            found = _open(path)  # another process may have built it while we waited
            if found is None:
                temporary = Path(f"{path}.tmp")
                for stale in (temporary, path):  # nobody else holds the lock: what is there is dead or damaged
                    shutil.rmtree(stale, ignore_errors=True)
                temporary.mkdir()
                try:
                    _build(temporary, size, *parts(), on_progress)
                    temporary.rename(path)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
                found = _open(path)
    except OSError as error:
        raise ValueError(
            f"the cache folder must be writable and have room, but got {str(cache_dir)!r} ({error.strerror or error}); "
            "free some space or set XDG_CACHE_HOME"
        ) from None
    assert found is not None
    return found


def _open(path: Path) -> tuple[Entry, Pixels] | None:
    """The entry, or None where there is none, or one that is damaged."""
    try:
        values: dict[str, Any] = json.loads((path / "index.json").read_text())
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        entry = Entry(**values)
        shape = (len(entry.labels), entry.size, entry.size, 3)
        if (path / "images.u8").stat().st_size != np.prod(shape, dtype=np.int64):
            return None
        # copy on write: torch wants writable memory, and nobody's writes may reach the file
        return entry, np.memmap(path / "images.u8", dtype=np.uint8, mode="c", shape=shape)
    except (OSError, ValueError, TypeError):
        return None


def _build(
    folder: Path, size: int, classes: Sequence[str], parts: dict[str, Sequence[Item]], on_progress: OnProgress | None
) -> None:
    total = sum(map(len, parts.values()))
    labels: list[int] = []
    counts: dict[str, int] = {}
    skipped: list[str] = []
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    histogram = np.zeros((3, 256), np.int64)
    # threads: Pillow gives the lock away while it decodes
    with (folder / "images.u8").open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        for part, items in parts.items():
            before, done = len(labels), len(labels) + len(skipped)
            for start in range(0, len(items), _CHUNK * _TASK):
                chunk = items[start : start + _CHUNK * _TASK]
                tasks = [chunk[i : i + _TASK] for i in range(0, len(chunk), _TASK)]
                for task, rows in zip(
                    tasks, pool.map(lambda task: [_pixels(i, size) for i in task], tasks), strict=True
                ):
                    read = [row for row in rows if not isinstance(row, str)]
                    labels += (item.label for item, row in zip(task, rows, strict=True) if not isinstance(row, str))
                    skipped += (f"{i.name}: {row}" for i, row in zip(task, rows, strict=True) if isinstance(row, str))
                    if read:
                        pixels = np.stack(read)
                        file.write(pixels.tobytes())
                        digest.update(pixels.tobytes())
                        if part == "train":
                            histogram += [np.bincount(pixels[..., c].ravel(), minlength=256) for c in range(3)]
                if on_progress:
                    on_progress(done + start + len(chunk), total)
            counts[part] = len(labels) - before
        _sync(file)
    check_unreadable(skipped, total)
    digest.update(json.dumps([labels, counts]).encode())
    mean, std = moments(histogram)
    index: dict[str, Any] = {
        "size": size, "classes": list(classes), "counts": counts, "labels": labels, "mean": mean, "std": std,
        "fingerprint": digest.hexdigest()[:16], "skipped": skipped,
    }  # fmt: skip
    with (folder / "index.json").open("wb") as file:
        file.write(json.dumps(index).encode())
        _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _pixels(item: Item, size: int) -> Pixels | str:
    """The item's pixels, or why it has none."""
    try:
        return item.pixels(size)
    except UnreadableImage as error:
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
