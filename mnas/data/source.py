"""What a source of images is: identified without reading pixels, its images listed on demand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mnas.data.image import Item

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
    """JSON-able; changes when any file does (relative path, size, time of change): what the cache is keyed by."""
    flip: bool
    parts: Callable[[], Parts]
    moments: tuple[Triple, Triple] | None = None
    """Mean and deviation of pixels as 0..1, by channel, where everybody uses the same; None where they are computed."""
    fixed_val: bool = False
    """Whether the validation images were held out of a published training part: their names are kept as a list."""
