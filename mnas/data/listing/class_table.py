"""The table of classes: images of each class and part, and files that were left out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mnas.counts import largest_class, majority_share


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Files of one kind that are not used."""

    reason: str
    """Reason, such as `unsupported .heic` or `dangling link`."""
    by_class: Mapping[str, int]
    """Class -> number of files; the empty name stands for files outside of class folders."""
    example: str
    """Name of one of these files."""

    @property
    def count(self) -> int:
        """Number of files."""
        return sum(self.by_class.values())


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Findings about a data set, besides its images, from listing it."""

    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    """Guesses about the layout and warnings about the data, each a sentence on one line."""
    empty: frozenset[str] = frozenset()
    """Names of empty files that have an image suffix; they also count as unreadable."""

    def with_notes(self, *notes: str) -> "Listing":
        """Return a copy with more notes."""
        return replace(self, notes=(*self.notes, *notes))


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """Number of images of each class and part; every command that reads a data set prints it."""

    name: str
    """Name of the data set."""
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    """Part -> number of images in use."""
    images: Mapping[str, tuple[int, ...]]
    """Part -> number of images in use of each class; omits parts of which only `counts` is known (shards)."""
    listing: Listing = field(default_factory=Listing)

    def majority_share(self, *parts: str) -> float | None:
        """Return the accuracy on `parts` of always predicting their largest class; None if its size is not known."""
        sums = self._sums(parts)
        return majority_share(sums) if sum(sums) else None

    def majority_class(self, *parts: str) -> str | None:
        """Return the class with the most images in `parts`, the first one in a tie; None if the sizes are not known."""
        sums = self._sums(parts)
        return self.classes[largest_class(sums)] if sum(sums) else None

    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON-able values."""
        values = asdict(self)
        del values["listing"]["empty"]  # it is in left_out
        for left_out, own in zip(values["listing"]["left_out"], self.listing.left_out, strict=True):
            left_out["count"] = own.count
        return values

    def _sums(self, parts: Sequence[str]) -> list[int]:
        """Return the number of images of each class in all of `parts`; empty if one of them is not known."""
        if not parts or any(part not in self.images for part in parts):
            return []
        return [sum(self.images[part][label] for part in parts) for label in range(len(self.classes))]


def left_out_of(files: Iterable[tuple[str, str, str]]) -> tuple[LeftOut, ...]:
    """Group (reason, class, name) by reason, the most frequent first."""
    counts: dict[str, Counter[str]] = {}
    examples: dict[str, str] = {}
    for reason, class_name, name in files:
        counts.setdefault(reason, Counter())[class_name] += 1
        examples.setdefault(reason, name)
    groups = [
        LeftOut(reason=reason, by_class=dict(by_class), example=examples[reason]) for reason, by_class in counts.items()
    ]
    return tuple(sorted(groups, key=lambda group: (-group.count, group.reason)))


def with_unreadable(listing: Listing, skipped: Sequence[str], classes: Sequence[str]) -> Listing:
    """Return the listing with unreadable files (`train/cat/7.png: reason`) among the files left out."""
    names = set(classes)
    unreadable = []
    for line in skipped:
        name = line.split(": ")[0]
        folders = name.split("/")[:-1]
        class_name = next((folder for folder in reversed(folders) if folder in names), "")
        unreadable.append(("empty file" if name in listing.empty else "unreadable", class_name, line))
    return replace(listing, left_out=(*listing.left_out, *left_out_of(unreadable)))
