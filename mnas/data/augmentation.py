"""The settings of `mnas.data.augment`, in a module that does not import torch."""

from dataclasses import dataclass
from typing import Literal, get_args

from mnas.data.mirror import Mirror

AugmentationKind = Literal["shift", "inception"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Augmentation of training images. Raises ValueError if a field is out of range."""

    kind: AugmentationKind = "shift"
    """`shift`: random shift by up to a sixteenth of the side, with reflected borders. `inception`: crop of random area
    and aspect ratio (3/4 to 4/3), resized to the input size (paper)."""
    scale_low: float = 0.08
    """Smallest share of the area of an `inception` crop; the largest is 1."""
    auto_augment: str = ""
    """Policy of timm, such as `rand-m9-mstd0.5-inc1`; empty: none. Available for files and shards."""
    random_erasing: float = 0.0
    """Probability that noise replaces a rectangle of 2 to 33 % of an image."""
    mirror: Mirror = "auto"
    """Whether to mirror half of the images at random. auto: mirror them unless the data set or two class names, such as
    left and right, forbid it (`mnas.data.mirror`)."""

    def __post_init__(self) -> None:
        kinds = get_args(AugmentationKind)
        if self.kind not in kinds:
            raise ValueError(f"--augmentation must be one of {', '.join(kinds)}, but got {self.kind!r}")
        if not 0 < self.scale_low <= 1:
            raise ValueError(f"--scale-low must be above 0 and at most 1, but got {self.scale_low!r}")
        if not 0 <= self.random_erasing <= 1:
            raise ValueError(f"--random-erasing must be from 0 to 1, but got {self.random_erasing!r}")
        if self.mirror not in get_args(Mirror):
            raise ValueError(f"--mirror must be one of {', '.join(get_args(Mirror))}, but got {self.mirror!r}")
