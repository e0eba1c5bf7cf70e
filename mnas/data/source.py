"""A source of images: identified without reading pixels, and listed on demand."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mnas.data.content.digests import content_of
from mnas.data.content.memory import DigestMemory, digest_all
from mnas.data.image import Item
from mnas.data.listing.class_table import Listing
from mnas.training_data import STAT

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """All images of a source."""

    classes: tuple[str, ...]
    train: Sequence[Item]
    val: Sequence[Item] | None
    """Validation images; None if they have yet to be drawn from `train`."""
    test: Sequence[Item] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """The identity of a data set, and functions that list its images."""

    name: str
    identity: Any
    """JSON-able identity, derived from every file's relative path, size and time of change."""
    flip: bool
    parts: Callable[[], Parts]
    files: Callable[[], Mapping[str, Sequence[tuple[str, str]]]]
    """Function that returns (relative name, path) of every file by part on disk."""
    classes: tuple[str, ...] = ()
    """Class names; empty if they follow from the set's name."""
    moments: tuple[Triple, Triple] | None = None
    """Conventional mean and deviation of pixels in [0, 1], by channel; None if they are computed."""
    own_val: bool = False
    """Whether the data has its own validation images, so that no seed draws them."""
    fixed_val: bool = False
    """Whether the validation images are a fixed share of a published training part; a file then lists their names."""
    listing: Listing = field(default_factory=Listing)
    """Omitted files, and guesses about the layout."""
    split: Any = None
    """JSON-able; the part of the identity, besides the files, that determines the validation images."""

    in_memory: bool = False
    """Whether one file holds many images, so that `parts` reads all pixels."""

    def size_bytes(self) -> int:
        """Return the total size of all image files, in bytes."""
        parts = self.parts()
        return sum(item.size_bytes for part in (parts.train, parts.val, parts.test) for item in part or ())

    @property
    def by_stat(self) -> str:
        """Return `stat:` and a digest of the classes and of every file's relative name, size and time of change."""
        text = json.dumps([self.classes or self.name, self.identity], sort_keys=True)
        return STAT + hashlib.sha256(text.encode()).hexdigest()

    def content(self, cache_dir: Path | None) -> str:
        """Return a digest of the classes, and of relative names and bytes of all files, 64 hexadecimal digits.

        Args:
            cache_dir: folder for cached digests of files; None: read every file.

        Raises OSError for a file that cannot be read.
        """
        return self.read_content(cache_dir)[0]

    def read_content(self, cache_dir: Path | None) -> tuple[str, dict[str, bytes]]:
        """Return `content`, and the SHA-256 of every file by its path."""
        parts = self.files()
        paths = [path for files in parts.values() for _, path in files]
        sha256 = digests_of(paths, cache_dir)
        named = {part: [(name, sha256[path]) for name, path in files] for part, files in parts.items()}
        return content_of(self.classes or (self.name,), named), sha256


def digests_of(paths: Sequence[str], cache_dir: Path | None) -> dict[str, bytes]:
    """Return the SHA-256 of files by path, cached in `cache_dir` (None: read all files). Raises OSError."""
    if cache_dir is None:
        return {path: digest.sha256 for path, digest in zip(paths, digest_all(paths), strict=True)}
    return dict(zip(paths, DigestMemory(cache_dir / "digests").digests(paths), strict=True))
