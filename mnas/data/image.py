"""Decode an image file of any format to square RGB pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mnas.data.decoding.decoders import SUFFIXES, Encoded, opened
from mnas.data.decoding.depth import UnreadableImage

__all__ = ["SUFFIXES", "Item", "Pixels", "UnreadableImage", "read_image", "read_sizes", "reason", "square"]

Pixels = npt.NDArray[np.uint8]


def reason(error: Exception) -> str:
    """Return the first line of an exception's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """An image that is not decoded yet."""

    name: str
    """Name for messages: a path relative to the data, or a number."""
    label: int
    content: Path | Pixels
    """Path of a file, or pixels (H, W) or (H, W, 3)."""
    crop: float = 1.0
    """Crop for `read_image`."""
    size_bytes: int = 0
    """Size of the file, in bytes; 0 for pixels."""

    @property
    def relative_name(self) -> str:
        """Path of the file relative to the data; `name` without a file."""
        if not isinstance(self.content, Path) or str(self.content).endswith(f"/{self.name}"):
            return self.name
        return self.name.partition("/")[2]  # a part that is drawn has no folder of its name

    def pixels(self, size: int) -> Pixels:
        """Return the pixels, uint8 (size, size, 3). Raises UnreadableImage as `read_image` does."""
        if isinstance(self.content, Path):
            return read_image(self.content, size, self.crop)
        return square(Image.fromarray(self.content).convert("RGB"), size, self.crop)


def read_image(content: Encoded, size: int, crop: float = 1.0) -> Pixels:
    """Return the centre square of an image, resized with antialiasing: uint8 (size, size, 3), RGB.

    EXIF rotation is applied; gray, palette, CMYK and 16-bit images become 8-bit RGB; transparency becomes white.

    Args:
        crop: side of the central crop as a share of the square's (ImageNet's evaluation: 0.875).

    Raises:
        UnreadableImage: the file is not an image, truncated, too large, or has an unknown range of values.
    """
    with opened(content) as image:
        return square(image.rgb(_least(size, crop)), size, crop)


def read_sizes(content: Encoded, sizes: Sequence[int], crop: float = 1.0) -> list[Pixels | UnreadableImage]:
    """Return what `read_image` returns or raises for each size, bit for bit.

    An image is decoded once for all sizes. A large JPEG is decoded once for each fraction (1/8 to 1) of its size that
    `read_image` would decode it at, as another fraction would give other pixels.
    """
    results: dict[int, Pixels | UnreadableImage] = {}
    while missing := [size for size in sizes if size not in results]:
        try:
            with opened(content) as image:
                divisors = {size: image.divisor(_least(size, crop)) for size in missing}
                missing = [size for size in missing if divisors[size] == divisors[missing[0]]]
                rgb = image.rgb(_least(missing[0], crop))
                results |= {size: square(rgb, size, crop) for size in missing}
        except UnreadableImage as error:
            results |= dict.fromkeys(missing, error)
    return [results[size] for size in sizes]


def _least(size: int, crop: float) -> tuple[int, int]:
    """Return the width and height to decode at least; they let the decoder downscale a large photograph."""
    side = round(2 * size / crop)
    return side, side


def square(rgb: Image.Image, size: int, crop: float = 1.0) -> Pixels:
    """Return the centre square of an upright RGB image, as `read_image` does."""
    side = max(1, round(min(rgb.size) * crop))
    x, y = (rgb.width - side) // 2, (rgb.height - side) // 2
    box = (x, y, x + side, y + side)
    return np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR, box=box))
