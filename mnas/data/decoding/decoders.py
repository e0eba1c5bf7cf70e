"""The one place where image files are opened: allowed formats, limits on size, and errors.

Pillow chooses the decoder by a file's content, not by its name, and one of its decoders starts Ghostscript. So the
formats are an allow-list, and every exception of a decoder becomes one exception, as no set of them is documented.
"""

import importlib
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from mnas.data.decoding import exif
from mnas.data.decoding.depth import Depth, UnreadableImage, depth_of, is_silent, to_rgb, used_bits
from mnas.readers import open_regular
from mnas.text import message_of

Encoded = Path | bytes | BinaryIO
"""Path of a file, its content, or an open file."""

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".ico", ".tga",
})  # fmt: skip
"""Suffixes of the files that count as images in a folder; a file's content decides which decoder reads it."""
_PLUGINS = {
    "JPEG": "Jpeg", "PNG": "Png", "BMP": "Bmp", "GIF": "Gif", "WEBP": "WebP", "TIFF": "Tiff", "PPM": "Ppm",
    "JPEG2000": "Jpeg2K", "AVIF": "Avif", "ICO": "Ico", "TGA": "Tga",
}  # fmt: skip
"""Format -> Pillow's module; TGA comes last, as its files have no signature."""
MOST_PIXELS = 178_956_970
"""Largest image, in pixels; larger ones are rejected before they are decoded (Pillow's own limit)."""
MOST_SCANS = 1_000
"""Largest number of scans of a JPEG file. Each is a pass over all pixels, and a megabyte has room for 100,000."""
_MOST_SCANNED = 5_000_000_000  # pixels times scans; a usual progressive file has 10 scans
_LARGE = 25_000_000  # pixels from which on images are decoded one by one: four bytes each, and copies
_LARGE_WAIT_S = 120.0
_AT_ONCE = 4_000_000  # bytes of a file that is read in one go
_JPEG = ("JPEG", "MPO")
_TRANSPOSED = (5, 6, 7, 8)  # orientations that exchange width and height
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_large = threading.Lock()
_ignored: dict[type[Warning], Any] = {Image.DecompressionBombWarning: None, UserWarning: None}
"""Category -> the entry in Python's list of filters that ignores it, once there is one."""


class Opened:
    """An image whose header was read."""

    def __init__(self, image: Image.Image, orientation: int | None, depth: Depth) -> None:
        self._image, self._orientation, self._depth = image, orientation, depth
        self.stored_size = image.size
        """(width, height) as stored, before the image is turned upright."""

    @property
    def size(self) -> tuple[int, int]:
        """Return (width, height) of the upright image. Decodes a PNG with metadata behind its pixels."""
        # Pillow gives a TIFF's size as if it were turned already
        turned_already = self._image.format == "TIFF" or self._known_orientation() not in _TRANSPOSED
        return self.stored_size if turned_already else self.stored_size[::-1]

    @property
    def orientation(self) -> int:
        """Return the EXIF orientation, 1 to 8. Decodes a PNG with metadata behind its pixels."""
        return self._known_orientation()

    def divisor(self, least: tuple[int, int] | None) -> int:
        """Return 8, 4, 2 or 1: `rgb(least)` decodes the image at the stored size divided by it.

        Only a JPEG has a divisor above 1; the rule is that of Pillow's `draft`.
        """
        if least is None or self._image.format not in _JPEG:
            return 1
        asked = least[::-1] if self._known_orientation() in _TRANSPOSED else least
        ratio = min(self.stored_size[0] // asked[0], self.stored_size[1] // asked[1])
        return next(divisor for divisor in (8, 4, 2, 1) if ratio >= divisor or divisor == 1)

    def rgb(self, least: tuple[int, int] | None = None) -> Image.Image:
        """Return the decoded image, upright and RGB.

        Args:
            least: (width, height) that suffices. A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is faster,
                but not below this size.
        """
        if least is not None and self._image.format in _JPEG:
            divisor, (width, height) = self.divisor(least), self.stored_size
            self._image.draft(None, (width // divisor, height // divisor))  # None: the mode as it is
        self._load()
        return turned(to_rgb(self._image, self._depth), self._known_orientation())

    def used_bits(self) -> int:
        """See `mnas.data.decoding.depth.used_bits`. Decodes only images that may use fewer bits than they have."""
        if not is_silent(self._depth):
            return 0
        self._load()
        return used_bits(self._image, self._depth)

    def _known_orientation(self) -> int:
        if self._orientation is None:
            self._load()
            self._orientation = orientation_of(self._image)
        return self._orientation

    def _load(self) -> None:
        width, height = self._image.size
        held = width * height >= _LARGE and _large.acquire(timeout=_LARGE_WAIT_S)
        try:
            self._image.load()
        finally:
            if held:
                _large.release()


@contextmanager
def opened(content: Encoded) -> Iterator[Opened]:
    """Open an image of an allowed format; of several pages or frames, the first one.

    Raises:
        UnreadableImage: the file is missing, of another format, damaged, too large, or of an unknown range of values;
            also for any error while it is open.
    """
    try:
        with _file(content) as file:
            image, orientation = _opened(file)
            with image:
                _check_size(image, file)
                yield Opened(image, orientation, depth_of(image, file))
    except UnreadableImage:
        raise
    except Exception as error:  # decoders promise nothing
        raise UnreadableImage(_reason(error)) from error


def upright(image: Image.Image) -> Image.Image:
    """Return an image that the caller has opened as upright RGB. Raises UnreadableImage."""
    try:
        orientation = orientation_of(image)
        if image.format == "TIFF":
            _leave_unturned(image)
        image.load()
        return turned(to_rgb(image), orientation)
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(_reason(error)) from error


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image that was stored with this orientation as an upright one."""
    method = _TURNS.get(orientation)
    return image if method is None else image.transpose(method)


def orientation_of(image: Image.Image) -> int:
    """Return the orientation of an open image, 1 to 8. Decodes a PNG that has none before its pixels."""
    if image.format == "TIFF":
        return exif.valid_orientation(getattr(image, "tag_v2", {}).get(exif.ORIENTATION))
    if image.format == "PNG" and "exif" not in image.info:
        image.load()
    return _read_orientation(image)


def _read_orientation(image: Image.Image) -> int:
    """Return the orientation in the metadata that was read so far, 1 to 8."""
    if "exif" in image.info:
        orientation = exif.exif_orientation(image.info["exif"])
    else:
        orientation = exif.profile_orientation(image.info.get("Raw profile type exif"))
    if orientation == 1:
        orientation = exif.xmp_orientation(image.info.get("XML:com.adobe.xmp") or image.info.get("xmp"))
    return orientation


@contextmanager
def _file(content: Encoded) -> Iterator[BinaryIO]:
    if isinstance(content, bytes):
        yield io.BytesIO(content)
    elif isinstance(content, Path):
        # not by name, as Pillow would map the file into memory, where cutting it off meanwhile raises SIGBUS
        with open_regular(content) as file:
            small = os.fstat(file.fileno()).st_size <= _AT_ONCE
            yield io.BytesIO(file.read()) if small else file
    else:
        yield content


def _opened(file: BinaryIO) -> tuple[Image.Image, int | None]:
    """Return the image and its orientation; None if the image must be decoded first."""
    _silence()
    try:
        return _identified(file)
    except Image.DecompressionBombError:
        raise
    except Exception as error:
        file.seek(0)
        whole = file.read()
        plain = exif.without_metadata(whole)
        if plain is None:
            raise
        try:
            image, orientation = _identified(io.BytesIO(plain))
        except Exception:
            raise error from None
        return image, exif.jpeg_orientation(whole) if whole.startswith(b"\xff\xd8") else orientation


def _identified(file: BinaryIO) -> tuple[Image.Image, int | None]:
    image: Image.Image = Image.open(file, formats=_formats())
    if image.format == "PNG":
        late = "exif" not in image.info and exif.metadata_follows_pixels(file)
        return image, None if late else _read_orientation(image)
    orientation = orientation_of(image)
    if image.format == "TIFF":
        _leave_unturned(image)
    return image, orientation


def _leave_unturned(image: Image.Image) -> None:
    """Keep Pillow from turning a TIFF when it is decoded: it would read all other metadata for that."""
    setattr(image, "getexif", Image.Exif)  # noqa: B010  # only on this instance


@cache
def _formats() -> tuple[str, ...]:
    """Return the allowed formats that this Pillow can read."""
    for module in _PLUGINS.values():
        importlib.import_module(f"PIL.{module}ImagePlugin")
    return tuple(name for name in _PLUGINS if name in Image.OPEN)


def _silence() -> None:
    """Keep Pillow's warnings off the terminal, as exceptions say all that matters."""
    _without_log()
    # catch_warnings would also restore the filters of other threads
    for category, entry in _ignored.items():
        if entry not in warnings.filters:
            warnings.filterwarnings("ignore", category=category, module=r"PIL\.")
            _ignored[category] = warnings.filters[0]


@cache
def _without_log() -> None:
    logging.getLogger("PIL").addHandler(logging.NullHandler())


def _check_size(image: Image.Image, file: BinaryIO) -> None:
    width, height = image.size
    pixels = width * height
    if pixels > MOST_PIXELS:
        raise UnreadableImage(f"it has {width} x {height} pixels, more than the limit of {MOST_PIXELS:,}")
    if image.format in _JPEG:
        before = file.tell()
        file.seek(0)
        scans = file.read().count(b"\xff\xda")
        file.seek(before)
        if scans > MOST_SCANS or scans * pixels > _MOST_SCANNED:
            raise UnreadableImage(
                f"it has {scans} scans of {width} x {height} pixels, which would take minutes to decode"
            )


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be read: {error.strerror}"
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more pixels than the limit of {MOST_PIXELS:,}"
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    return f"it is damaged or cut off: {message_of(error, 500)}"
