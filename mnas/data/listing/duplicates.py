"""Find equal images in two parts or two classes, which make an accuracy misleading."""

import contextlib
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from mnas.atomic import write_atomic
from mnas.data.content.digests import UNREADABLE
from mnas.data.content.memory import digest_all
from mnas.data.image import Item, Pixels
from mnas.readers import read_json

MOST_BYTES = 256_000_000
"""Limit on the files that are read to compare images that are not decoded; this takes about half a second."""
_EXAMPLES = 2
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Images that occur more than once. The numbers of images run through all parts in order."""

    in_train: Mapping[str, int]
    """Part -> number of its images that are also in the training part; omits parts without any."""
    examples: Mapping[str, tuple[tuple[int, int], ...]]
    """Part -> some of these images, each with its duplicate in the training part."""
    in_two_classes: int
    """Number of images that are in more than one class."""
    of_two_classes: tuple[tuple[int, int], ...]
    """Some of these images, each with a duplicate of another class."""

    def notes(self, counts: Mapping[str, int], name: Callable[[int], str]) -> tuple[str, ...]:
        """Return the warnings.

        Args:
            counts: part -> number of images.
            name: function from an image's number to its name.
        """

        def pairs(examples: Iterable[tuple[int, int]]) -> str:
            return ", ".join(f"{name(first)} = {name(second)}" for first, second in examples)

        warnings = [
            f"warning: {count:,} of the {counts[part]:,} {part} images are also in train "
            f"({pairs(self.examples[part])}), so the {part} accuracy is too high"
            for part, count in self.in_train.items()
        ]
        if self.in_two_classes:
            warnings.append(
                f"warning: {self.in_two_classes:,} images are in more than one class ({pairs(self.of_two_classes)}), "
                "so no model can classify all of them correctly"
            )
        return tuple(warnings)


def duplicates(
    keys: Mapping[int, Hashable], labels: npt.NDArray[np.int64] | Sequence[int], counts: Mapping[str, int]
) -> Duplicates:
    """Find images with equal keys.

    Args:
        keys: number of an image -> key, equal for equal images; unique images may be omitted.
        labels: labels of all images.
        counts: part -> number of images, in the order of their numbers.
    """
    groups: dict[Hashable, list[int]] = {}
    for number in sorted(keys):
        groups.setdefault(keys[number], []).append(number)
    part_of = [part for part, count in counts.items() for _ in range(count)]
    in_train: dict[str, int] = {}
    examples: dict[str, list[tuple[int, int]]] = {}
    in_two, of_two = 0, []
    for group in groups.values():
        if len(group) < 2:
            continue
        trained = [number for number in group if part_of[number] == "train"]
        for number in group if trained else ():
            if (part := part_of[number]) != "train":
                in_train[part] = in_train.get(part, 0) + 1
                examples.setdefault(part, []).append((number, trained[0]))
        other = [number for number in group if labels[number] != labels[group[0]]]
        if other:
            in_two += len(group)
            of_two.append((group[0], other[0]))
    return Duplicates(
        in_train={part: in_train[part] for part in counts if part in in_train},
        examples={part: tuple(pairs[:_EXAMPLES]) for part, pairs in examples.items()},
        in_two_classes=in_two,
        of_two_classes=tuple(of_two[:_EXAMPLES]),
    )


def pixel_keys(pixels: Pixels) -> dict[int, bytes]:
    """Return a digest of every image (N, S, S, 3) that has the same middle line as another one."""
    middle = np.ascontiguousarray(pixels[:, pixels.shape[1] // 2])
    lines = np.fromiter((zlib.crc32(line) for line in middle), np.uint32, len(middle))
    _, inverse, count = np.unique(lines, return_inverse=True, return_counts=True)
    alike = np.flatnonzero(count[inverse] > 1).tolist()
    return {number: hashlib.blake2b(pixels[number].tobytes(), digest_size=16).digest() for number in alike}


def file_keys(items: Sequence[Item]) -> dict[int, bytes] | None:
    """Return a digest of every file that has the same size as another one; None if they are too much to read.

    Args:
        items: images that are files of their own.

    Raises OSError for a file that cannot be read.
    """
    sizes = np.array([item.size_bytes for item in items], np.int64)
    _, inverse, count = np.unique(sizes, return_inverse=True, return_counts=True)
    alike = np.flatnonzero(count[inverse] > 1)
    if sizes[alike].sum() > MOST_BYTES:
        return None
    numbers = alike.tolist()
    contents = [items[number].content for number in numbers]
    digests = zip(numbers, digest_all([str(content) for content in contents]), strict=True)
    return {number: digest.sha256 for number, digest in digests if digest.sha256 != UNREADABLE}


def names_of(items: Iterable[Item], skipped: Iterable[str]) -> Sequence[str]:
    """Return the names of the readable items, in order.

    Args:
        skipped: a line for each unreadable item, which begins with its name and a colon.
    """
    names = [item.name for item in items]
    unread = unread_names(names, skipped)
    return shown_names([name for name in names if name not in unread])


def unread_names(names: Sequence[str], skipped: Iterable[str]) -> set[str]:
    """Return those of the names with which a line of `skipped` begins, before a colon."""
    all_names, unread = set(names), set()
    for line in skipped:
        ends = (colon.start() for colon in re.finditer(": ", line))
        unread |= {line[:end] for end in ends if line[:end] in all_names}
    return unread


def shown_names(names: Sequence[str]) -> Sequence[str]:
    """Return the items' names as file names: without `train/` if there is no such folder."""
    alone = all(name.startswith("train/") for name in names)
    return [name.removeprefix("train/") for name in names] if alone else names


def cached_duplicates(cache_dir: Path, fingerprint: str, find: Callable[[], Duplicates]) -> Duplicates:
    """Return the duplicates among the images with this fingerprint, from the cache folder or else from `find`."""
    path = cache_dir / f"duplicates-{fingerprint}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):  # absent, or damaged
        return _read(read_json(path))
    answer = find()
    # Without the cache it is only slower. The lock shows that nobody writes what killed processes left.
    with contextlib.suppress(OSError), FileLock(f"{path}.lock"):
        for stale in cache_dir.glob(f".{path.name}.*.tmp"):
            stale.unlink(missing_ok=True)
        write_atomic(path, json.dumps({"format": _FORMAT, **asdict(answer)}))
    return answer


def _read(values: Any) -> Duplicates:
    if values["format"] != _FORMAT:
        raise ValueError("it belongs to another version")

    def pairs(rows: Any) -> tuple[tuple[int, int], ...]:
        return tuple((int(first), int(second)) for first, second in rows)

    return Duplicates(
        in_train={str(part): int(count) for part, count in values["in_train"].items()},
        examples={str(part): pairs(rows) for part, rows in values["examples"].items()},
        in_two_classes=int(values["in_two_classes"]),
        of_two_classes=pairs(values["of_two_classes"]),
    )
