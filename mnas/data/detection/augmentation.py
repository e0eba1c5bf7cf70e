"""How strongly training images of a detector are varied, in a module that does not import torch."""

from dataclasses import dataclass
from typing import Literal

BoxAugmentation = Literal["ssd", "small", "none"]
"""ssd: zooming out, crops around boxes, colours and mirroring as in SSD. small: the same, weaker, for hundreds of
images. none: mirroring only where it is asked for."""


@dataclass(frozen=True, kw_only=True)
class Strength:
    """The range of each variation."""

    zoom: float
    """Largest factor by which an image is zoomed out; 1: never."""
    zoom_share: float
    """Share of the images that are zoomed out."""
    crop: float
    """Smallest side of a crop as a share of the image's; 1: no crops."""
    contrast: float
    """Largest relative change of contrast and saturation."""
    brightness: float
    hue: float
    """Largest change of hue, as a share of the colour circle; 0: colours do not change at all."""
    swap: bool
    """Whether half of the images get their colour channels in random order."""


STRENGTHS: dict[BoxAugmentation, Strength] = {
    # The values of Liu et al., as in torchvision's reference training of SSD300
    "ssd": Strength(zoom=4, zoom_share=0.5, crop=0.3, contrast=0.5, brightness=0.125, hue=0.05, swap=True),
    # Zooming out makes small objects too small to learn, and few images have few colours
    "small": Strength(zoom=1.5, zoom_share=0.25, crop=0.5, contrast=0.3, brightness=0.125, hue=0.02, swap=False),
    "none": Strength(zoom=1, zoom_share=0, crop=1, contrast=0, brightness=0, hue=0, swap=False),
}
