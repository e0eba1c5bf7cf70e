"""A source of images: identified without reading pixels, its images listed on demand."""

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
    """None where validation images are yet to be held out of `train`."""
    test: Sequence[Item] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A data set by its identity; the images themselves only on demand."""

    name: str
    identity: Any
    """JSON-able; of every file's relative path, size and time of change."""
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
    """Files left out, and guesses about the layout."""
    split: Any = None
    """JSON-able; what else than its files decides which images are for validation."""

    in_memory: bool = False
    """Whether a file holds many images, all of which `parts` reads."""

    def size_bytes(self) -> int:
        """Return the size of all image files."""
        parts = self.parts()
        return sum(item.size_bytes for part in (parts.train, parts.val, parts.test) for item in part or ())

    @property
    def by_stat(self) -> str:
        """`stat:` and a digest of the classes and of every file's relative name, size and time of change."""
        text = json.dumps([self.classes or self.name, self.identity], sort_keys=True)
        return STAT + hashlib.sha256(text.encode()).hexdigest()

    def content(self, cache_dir: Path | None) -> str:
        """Return 64 hexadecimal digits of the classes, and of the names and bytes of all files, wherever they lie.

        Args:
            cache_dir: where digests of files are remembered; None to read every file.

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
    """Return the SHA-256 of files by path, remembered in the cache folder (None: read all of them). Raises OSError."""
    if cache_dir is None:
        return {path: digest.sha256 for path, digest in zip(paths, digest_all(paths), strict=True)}
    return dict(zip(paths, DigestMemory(cache_dir / "digests").digests(paths), strict=True))
