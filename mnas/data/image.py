"""One image file as square RGB pixels, whatever it was saved as."""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".ico", ".tga",
})  # fmt: skip
# what Pillow's decoders raise on files that are damaged, of no known format, or bombs
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

Pixels = npt.NDArray[np.uint8]


def reason(error: Exception) -> str:
    """The first line of what an exception says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One image, not yet decoded."""

    name: str
    """For messages: a path relative to the data, or a number."""
    label: int
    content: Path | Pixels
    """A file, or pixels (H, W) or (H, W, 3)."""
    crop: float = 1.0
    """See `read_image`."""
    size_bytes: int = 0
    """Of the file; 0 for pixels."""

    def pixels(self, size: int) -> Pixels:
        """uint8 (size, size, 3). Raises what `read_image` raises."""
        if isinstance(self.content, Path):
            return read_image(self.content, size, self.crop)
        return square(Image.fromarray(self.content), size, self.crop)


def read_image(path: Path | BinaryIO, size: int, crop: float = 1.0) -> Pixels:
    """The centre square of an image, resized with antialiasing: uint8 (size, size, 3), RGB.

    EXIF rotation is applied; gray, palette, CMYK and 16-bit images become 8-bit RGB; transparency is laid on white.

    Args:
        crop: share of the square's side that is kept, around the centre (ImageNet's evaluation: 0.875).

    Raises:
        OSError, SyntaxError, ValueError, ...: one of `DAMAGED`, for what is no image, cut off, or of an unknown depth.
    """
    with Image.open(path) as image:
        side = round(2 * size / crop)
        image.draft(None, (side, side))  # JPEG: decode a large photograph at a fraction of its size, same mode
        return square(ImageOps.exif_transpose(image), size, crop)


def square(image: Image.Image, size: int, crop: float = 1.0) -> Pixels:
    """As `read_image`, for an open image whose orientation is right already."""
    rgb = to_rgb(image)
    side = max(1, round(min(rgb.size) * crop))
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR, box=box))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow's as RGB; raises ValueError for one whose range of values is not known (float, 32-bit)."""
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion to RGB would clip instead of scaling
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"an integer image must have 8 or 16 bits, but got values up to {values.max()}")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("an image must have integer pixels, but got floating-point ones")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
