"""What a source of images is: identified without reading pixels, its images listed on demand."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mnas.data.content.digests import content_of, digest_files
from mnas.data.image import Item
from mnas.data.listing.class_table import Listing

Triple = tuple[float, float, float]
STAT = "stat:"
"""What a content begins with that was made of names, sizes and times instead of bytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """All images of a source."""

    classes: tuple[str, ...]
    train: Sequence[Item]
    val: Sequence[Item] | None
    """None where validation images are yet to be held out of `train`."""
    test: Sequence[Item] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A data set by its identity; the images themselves only on demand."""

    name: str
    identity: Any
    """JSON-able; changes when any file does (relative path, size, time of change): what the cache is keyed by."""
    flip: bool
    parts: Callable[[], Parts]
    files: Callable[[], Mapping[str, Sequence[tuple[str, str]]]]
    """(relative name, path) of every file, by part as it lies on disk."""
    classes: tuple[str, ...] = ()
    """Names of the classes; empty where they follow from the set's name."""
    moments: tuple[Triple, Triple] | None = None
    """Mean and deviation of pixels as 0..1, by channel, where everybody uses the same; None where they are computed."""
    own_val: bool = False
    """Whether the data has validation images of its own, so that none are drawn by a seed."""
    fixed_val: bool = False
    """Whether the validation images were held out of a published training part: their names are kept as a list."""
    listing: Listing = field(default_factory=Listing)
    """What was left out, and what had to be guessed."""

    @property
    def by_stat(self) -> str:
        """`stat:` and a digest of the classes and of every file's relative name, size and time of change."""
        text = json.dumps([self.classes or self.name, self.identity], sort_keys=True)
        return STAT + hashlib.sha256(text.encode()).hexdigest()

    def content(self) -> str:
        """Return 64 hexadecimal digits of the classes, and of the names and bytes of all files, wherever they lie.

        Raises OSError for a file that cannot be read.
        """
        parts = {
            part: list(zip([name for name, _ in files], digest_files([path for _, path in files]), strict=True))
            for part, files in self.files().items()
        }
        return content_of(self.classes or (self.name,), parts)
