"""An entry of the cache of decoded images: `images.u8` (raw pixels), `index.json`, and `seal.json` about both.

The seal holds digests and stats of the two files. As long as the stats match, the files count as intact. If one differs
(the cache was copied, a file was changed), the files are read in full and compared with the digests. A damaged entry is
built again.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mnas.atomic import write_atomic
from mnas.data.image import Pixels
from mnas.readers import open_regular, parse_json, read_json

IMAGES, INDEX, SEAL = "images.u8", "index.json", "seal.json"
_PARTS = ("train", "val", "test")
_TICK_S = 0.02  # longer than the resolution of change times in any kernel
_BLOCK = 1 << 24
_MOST_INDEX_BYTES = 1 << 30  # enough for about a hundred million labels


@dataclass(frozen=True, kw_only=True)
class ImageEntry:
    """The fields of `index.json`. Raises ValueError if one is out of range."""

    key: str
    """Key of the images that the entry was built from, 64 hexadecimal digits."""
    size: int
    classes: tuple[str, ...]
    counts: dict[str, int]
    """Number of images of each part, in the order of `images.u8`."""
    labels: tuple[int, ...]
    """Labels of all images, in the same order."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fingerprint: str
    skipped: tuple[str, ...]

    def __post_init__(self) -> None:
        right = {
            "key": isinstance(self.key, str) and re.fullmatch("[0-9a-f]{64}", self.key),
            "size": type(self.size) is int and self.size > 0,
            "classes": _all_of(str, self.classes) and len(set(self.classes)) == len(self.classes) > 0,
            "counts": (
                isinstance(self.counts, dict)
                and tuple(self.counts) in (_PARTS[:2], _PARTS)
                and all(type(count) is int and count >= 0 for count in self.counts.values())
            ),
            "labels": _all_of(int, self.labels),
            "mean": are_moments(self.mean),
            "std": are_moments(self.std) and min(self.std) > 0,
            "fingerprint": isinstance(self.fingerprint, str) and re.fullmatch("[0-9a-f]{16}", self.fingerprint),
            "skipped": _all_of(str, self.skipped),
        }
        for name, holds in right.items():
            if not holds:
                raise ValueError(f"the field {name} has the invalid value {_short(getattr(self, name))}")
        if len(self.labels) != sum(self.counts.values()):
            raise ValueError(f"it has {len(self.labels)} labels for {sum(self.counts.values())} images")
        if self.labels and not (min(self.labels) >= 0 and max(self.labels) < len(self.classes)):
            raise ValueError(
                f"it has labels from {min(self.labels)} to {max(self.labels)} for {len(self.classes)} classes"
            )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the pixels (N, size, size, 3)."""
        return len(self.labels), self.size, self.size, 3

    def write(self, folder: Path) -> None:
        """Write `index.json` and sync it to disk."""
        with (folder / INDEX).open("wb") as file:
            file.write(json.dumps(asdict(self)).encode())
            synced(file)


def _all_of(kind: type, values: object) -> bool:
    return isinstance(values, tuple) and all(type(value) is kind for value in values)


def are_moments(values: object) -> bool:
    """Return whether the values can be a mean or a deviation of pixels in [0, 1], by channel."""
    return (
        isinstance(values, tuple)
        and len(values) == 3
        and all(type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1 for value in values)
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def synced(file: BinaryIO) -> None:
    """Flush a file and sync it to disk."""
    file.flush()
    os.fsync(file.fileno())


class PixelDigest:
    """SHA-256 of classes, pixels and labels; its first 16 digits are the fingerprint of a data set."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._digest = hashlib.sha256(json.dumps(list(classes)).encode())

    def add(self, pixels: bytes | memoryview) -> None:
        """Add the next pixels, in the order of `images.u8`."""
        self._digest.update(pixels)

    def result(self, labels: Sequence[int], counts: dict[str, int]) -> str:
        """Return all 64 digits."""
        self._digest.update(json.dumps([list(labels), counts]).encode())
        return self._digest.hexdigest()


def seal(folder: Path, pixels_sha256: str) -> None:
    """Write `seal.json` for the two files, which are complete."""
    newest = max((folder / name).stat().st_ctime_ns for name in (IMAGES, INDEX))
    if time.time_ns() - newest < _TICK_S * 1e9:
        time.sleep(_TICK_S)  # so that a later change has a later time
    stats = {name: stat_of(os.stat(folder / name)) for name in (IMAGES, INDEX)}
    index = hashlib.sha256((folder / INDEX).read_bytes()).hexdigest()
    write_atomic(folder / SEAL, json.dumps({"pixels": pixels_sha256, "index": index, "stats": stats}))


def stat_of(status: os.stat_result) -> list[int]:
    """Return the fields of a file's stat that a seal holds."""
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def open_entry(folder: Path, key: str, size: int, *, verify: bool) -> tuple[ImageEntry, Pixels] | None:
    """Return the entry and its pixels, memory-mapped; None if the entry does not exist.

    Args:
        key: key that the entry must have.
        size: side in pixels.
        verify: read the files in full, even if their stats match.

    Raises:
        ValueError: the entry is damaged; the message says how.
    """
    if not folder.is_dir():
        return None
    try:
        with open_regular(folder / INDEX) as index, open_regular(folder / IMAGES) as images:
            sealed = read_json(folder / SEAL)
            stats = {IMAGES: stat_of(os.fstat(images.fileno())), INDEX: stat_of(os.fstat(index.fileno()))}
            content = index.read(_MOST_INDEX_BYTES + 1)
            entry = _parsed(content)
            if (entry.key, entry.size) != (key, size):
                raise ValueError("it belongs to other images")
            if stats[IMAGES][1] != math.prod(entry.shape):
                raise ValueError(f"{IMAGES} has {stats[IMAGES][1]} bytes instead of {math.prod(entry.shape)}")
            if not isinstance(sealed, dict) or set(sealed) != {"pixels", "index", "stats"}:
                raise ValueError(f"{SEAL} has unexpected fields")
            if verify or sealed["stats"] != stats:
                if hashlib.sha256(content).hexdigest() != sealed["index"]:
                    raise ValueError(f"{INDEX} was changed")
                if _digest_of(entry, images) != sealed["pixels"]:
                    raise ValueError(f"{IMAGES} was changed")
                if sealed["stats"] != stats:
                    with contextlib.suppress(OSError):  # without it, the next process reads the files in full again
                        write_atomic(folder / SEAL, json.dumps(sealed | {"stats": stats}))
            # Copy on write, because torch expects writable memory and no write may reach the file.
            return entry, np.memmap(images, dtype=np.uint8, mode="c", shape=entry.shape)
    except OSError as error:
        raise ValueError(f"{Path(error.filename or folder).name}: {error.strerror or error}") from None


def _parsed(content: bytes) -> ImageEntry:
    fields = parse_json(content, _MOST_INDEX_BYTES)
    if not isinstance(fields, dict):
        raise ValueError(f"{INDEX} is not a JSON object")
    values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in fields.items()}
    try:
        return ImageEntry(**values)
    except TypeError:
        raise ValueError(f"{INDEX} has unexpected fields") from None


def _digest_of(entry: ImageEntry, images: BinaryIO) -> str:
    digest = PixelDigest(entry.classes)
    while block := images.read(_BLOCK):
        digest.add(block)
    return digest.result(entry.labels, entry.counts)
