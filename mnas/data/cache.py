"""The cache of decoded images: built once, atomically, and memory-mapped by every process that uses it.

An entry is a folder `NAME-SIZEpx-KEY/` (see `mnas.data.entry`). Its key is a digest of the decoded files' content:
equal files share an entry in any location, and changed files never do. A builder holds a lock, writes under another
name, and then renames. So a reader never sees a partial entry, and two builders never work at the same time. The next
builder removes the remains of a killed one. Any entry may be deleted at any time.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from mnas.data.content.digests import verified
from mnas.data.entry import IMAGES, ImageEntry, PixelDigest, open_entry, seal, synced
from mnas.data.image import Item, Pixels, UnreadableImage, read_sizes, reason, square

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
    keys: Mapping[int, str],
    parts: Callable[[], Built],
    sha256: Mapping[str, bytes],
    on_progress: OnProgress | None,
    *,
    verify: bool = False,
) -> dict[int, tuple[ImageEntry, Pixels]]:
    """Return the entry of each size and its pixels as `find_entry` does.

    Missing entries are built from `parts()`, which are read and decoded once for all of them.

    Args:
        name: start of the folders' names.
        keys: side in pixels -> key of the entry (see `entry_key`).
        parts: returns the images; called only to build entries.
        sha256: path -> digest that the file must have when it is decoded, for every file that an item names.
        verify: read the entries in full and compare them with their digests, even if their stats match their seals.

    Raises:
        ValueError: more than 1 % of the images are unreadable, or the cache folder cannot be written or has too little
            space.
        ContentChangedError: a file has changed.
    """
    entries = {size: find_entry(cache_dir, key, size, verify=verify) for size, key in keys.items()}
    missing = sorted(size for size, entry in entries.items() if entry is None)
    try:
        if missing:
            cache_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as locks:
            places = {size: _place(cache_dir, name, keys[size], size) for size in missing}
            for path in places.values():  # in the order of sizes, so that no two builders wait for each other
                locks.enter_context(FileLock(f"{path}.lock"))
            for size, path in places.items():  # another process may have built it during the wait
                entries[size] = _open(path, keys[size], size, verify, say=True)
            places = {size: path for size, path in places.items() if entries[size] is None}
            if places:
                _build_all(places, keys, *parts(), sha256, on_progress)
            for size, path in places.items():
                entries[size] = _open(path, keys[size], size, False, say=True)
    except OSError as error:
        raise ValueError(
            f"cannot write to the cache folder {str(cache_dir)!r} ({error.strerror or error}); free some disk space, "
            "or set XDG_CACHE_HOME to another folder"
        ) from None
    return {size: _present(entry) for size, entry in entries.items()}


def _present(entry: tuple[ImageEntry, Pixels] | None) -> tuple[ImageEntry, Pixels]:
    assert entry is not None
    return entry


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


def _build_all(
    places: Mapping[int, Path],
    keys: Mapping[int, str],
    classes: Sequence[str],
    parts: Mapping[str, Sequence[Item]],
    sha256: Mapping[str, bytes],
    on_progress: OnProgress | None,
) -> None:
    """Build the entry of each size under another name, and rename all once they are complete."""
    temporary = {size: Path(f"{path}.tmp") for size, path in places.items()}
    try:
        for stale in (*temporary.values(), *places.values()):  # under the locks, existing files are stale or damaged
            _remove(stale)
        _check_space(next(iter(places.values())).parent, sum(map(len, parts.values())), list(places))
        for folder in temporary.values():
            folder.mkdir()
        _build(temporary, keys, classes, parts, sha256, on_progress)
        for size, path in places.items():
            temporary[size].rename(path)
    finally:
        for folder in temporary.values():
            shutil.rmtree(folder, ignore_errors=True)


def _check_space(cache_dir: Path, images: int, sizes: Sequence[int]) -> None:
    needed, disk = decoded_bytes(images, sizes), shutil.disk_usage(cache_dir)
    if disk.total and needed > disk.free:  # a file system that does not know its space reports 0 for both
        raise ValueError(
            f"the decoded images take {needed / 1e9:.1f} GB at {sizes_text(sizes)}, but the disk of the cache folder "
            f"{str(cache_dir)!r} has {disk.free / 1e9:.1f} GB left; free some disk space, or set XDG_CACHE_HOME to "
            "another folder"
        )


def decoded_bytes(images: int, sizes: Sequence[int]) -> int:
    """Return the bytes that images take at all sizes together."""
    return images * 3 * sum(size * size for size in sizes)


def sizes_text(sizes: Sequence[int]) -> str:
    """Return text such as "64, 96 and 128 px"."""
    *others, last = map(str, sizes)
    return f"{', '.join(others)} and {last} px" if others else f"{last} px"


def _build(
    folders: Mapping[int, Path],
    keys: Mapping[int, str],
    classes: Sequence[str],
    parts: Mapping[str, Sequence[Item]],
    sha256: Mapping[str, bytes],
    on_progress: OnProgress | None,
) -> None:
    """Write the entry of each size into its folder; see `find_or_build`."""
    total = sum(map(len, parts.values()))
    sizes = list(folders)
    task_size = max(1, _TASK // len(sizes))  # so that a chunk takes no more memory than one of the largest size

    def decode(task: Sequence[Item]) -> list[list[Pixels | str]]:
        return [_pixels(item, sizes, sha256) for item in task]

    # Threads are enough, as Pillow releases the GIL while it decodes.
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(os.cpu_count()) as pool:
        writers = [stack.enter_context(_Writer(folders[size], keys[size], size, classes)) for size in sizes]
        before = 0
        for part, items in parts.items():
            for start in range(0, len(items), _CHUNK * task_size):
                chunk = items[start : start + _CHUNK * task_size]
                tasks = [chunk[i : i + task_size] for i in range(0, len(chunk), task_size)]
                for task, rows in zip(tasks, pool.map(decode, tasks), strict=True):
                    for number, writer in enumerate(writers):
                        writer.add(part, task, [row[number] for row in rows])
                if on_progress:
                    on_progress(before + start + len(chunk), total)
            before += len(items)
        for writer in writers:
            writer.finish(parts, total)


class _Writer:
    """Writes the entry of one size; `finish` completes it."""

    def __init__(self, folder: Path, key: str, size: int, classes: Sequence[str]) -> None:
        self._folder, self._key, self._size, self._classes = folder, key, size, tuple(classes)
        self._file = (folder / IMAGES).open("wb")
        self._labels: list[int] = []
        self._counts: Counter[str] = Counter()
        self._skipped: list[str] = []
        self._digest = PixelDigest(classes)
        self._histogram = np.zeros((3, 256), np.int64)

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, part: str, items: Sequence[Item], rows: Sequence[Pixels | str]) -> None:
        """Write the pixels of the part's next items; a text instead of pixels says why an item is unreadable."""
        pairs = list(zip(items, rows, strict=True))
        self._skipped += (f"{item.name}: {row}" for item, row in pairs if isinstance(row, str))
        read = [(item.label, row) for item, row in pairs if not isinstance(row, str)]
        if not read:
            return
        self._labels += (label for label, _ in read)
        self._counts[part] += len(read)
        pixels = np.stack([row for _, row in read])
        content = pixels.tobytes()
        self._file.write(content)
        self._digest.add(content)
        if part == "train":
            column = Image.fromarray(pixels.reshape(-1, self._size, 3))
            self._histogram += np.array(column.histogram(), np.int64).reshape(3, 256)

    def finish(self, parts: Iterable[str], total: int) -> None:
        """Write the index and the seal.

        Args:
            parts: names of all parts, in order.
            total: number of all items.

        Raises:
            ValueError: more than 1 % of the items are unreadable.
        """
        with self._file as file:
            synced(file)
        check_unreadable(self._skipped, total)
        counts = {part: self._counts[part] for part in parts}
        content = self._digest.result(self._labels, counts)
        mean, std = moments(self._histogram)
        ImageEntry(
            key=self._key, size=self._size, classes=self._classes, counts=counts, labels=tuple(self._labels),
            mean=_triple(mean), std=_triple(std), fingerprint=content[:16], skipped=tuple(self._skipped),
        ).write(self._folder)  # fmt: skip
        seal(self._folder, content)


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third


def _pixels(item: Item, sizes: Sequence[int], sha256: Mapping[str, bytes]) -> list[Pixels | str]:
    """Return for each size the item's pixels, or the reason why it is unreadable. Raises ContentChangedError."""
    try:
        if not isinstance(item.content, Path):
            rgb = Image.fromarray(item.content).convert("RGB")
            return [square(rgb, size, item.crop) for size in sizes]
        with verified(str(item.content), sha256[str(item.content)]) as file:
            read = read_sizes(file, sizes, item.crop)
        return [reason(pixels) if isinstance(pixels, UnreadableImage) else pixels for pixels in read]
    except (UnreadableImage, OSError) as error:
        return [reason(error)] * len(sizes)


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
