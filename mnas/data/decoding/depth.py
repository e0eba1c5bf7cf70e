"""Scale images of any range of values to 8 bits per channel, as their files declare and never by a guess."""

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF's tags
_MINIMA, _MAXIMA = (280, 340), (281, 341)  # MinSampleValue and SMinSampleValue; MaxSampleValue and SMaxSampleValue
_SIGNED, _FLOAT = 2, 3  # SampleFormat
_FULL = 65535
_PNG_SEARCHED = 1 << 16  # bytes to search for sBIT, which comes before the pixels


class UnreadableImage(ValueError):  # noqa: N818  # the name says what is wrong
    """A file that cannot be decoded as an image; the message is one line that does not name the file."""


@dataclass(frozen=True, kw_only=True)
class Depth:
    """The range of values that a file declares."""

    bits: int = 8
    """Bits of a stored sample."""
    significant: int = 0
    """Number of these bits that the original had (PNG's sBIT); 0 if the file does not declare it."""
    white: float = 0.0
    """Value of white; 0 if the file does not declare it."""
    signed: bool = False
    inverted: bool = False
    """Whether 0 is white and Pillow does not invert it."""


_PLAIN = Depth()


def depth_of(image: Image.Image, file: BinaryIO) -> Depth:
    """Return the range of values that an open image's file declares."""
    if image.mode == "RGB" and image.format not in ("TIFF", "PNG"):
        return _PLAIN
    if image.format == "TIFF":
        return _tiff_depth(getattr(image, "tag_v2", {}), image.mode)
    if image.format == "PNG":
        return _png_depth(file)
    if image.mode.startswith("I") and image.format in ("PPM", "JPEG2000"):
        return Depth(bits=16, white=_FULL)  # Pillow scales them to 16 bits
    return Depth(bits=16 if image.mode.startswith("I;16") else 8)


def to_rgb(image: Image.Image, depth: Depth | None = None) -> Image.Image:
    """Return an image of any of Pillow's modes as 8-bit RGB, transparent pixels on white.

    Raises:
        UnreadableImage: its range of values is unknown.
    """
    if image.mode.startswith("I") or image.mode == "F" or (depth is not None and depth.signed):
        gray = _gray(image, depth or Depth(bits=16 if image.mode.startswith("I;16") else 32))
        return gray.convert("RGB")
    if depth is not None and depth.bits == 16:
        _check_colours(image, depth)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        if image.mode == "La":
            image = image.convert("LA")
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def used_bits(image: Image.Image, depth: Depth) -> int:
    """Return the bits that the values of a decoded image use: 8, 10, 12, 14 or 16.

    0 for images of fewer than 16 bits, for files that declare their range, and for black images.
    """
    if not is_silent(depth) or image.mode == "F":
        return 0
    largest = int(np.asarray(image).max()) if image.mode.startswith("I") else _largest_colour(image)
    return next((bits for bits in (8, 10, 12, 14) if largest < 1 << bits), 16) if largest > 0 else 0


def is_silent(depth: Depth) -> bool:
    """Return whether values have 16 bits or more and the file does not declare how many of them are used."""
    return depth.bits >= 16 and not depth.white and not depth.significant and not depth.signed


def _largest_colour(image: Image.Image) -> int:
    """Return the largest value that a 16-bit colour image may have; Pillow keeps only the high bytes."""
    if image.mode not in ("RGB", "RGBA", "RGBX", "RGBa", "LA"):
        return 0
    values = np.asarray(image)[..., : 1 if image.mode == "LA" else 3]
    return int(values.max()) * 256 + 255 if values.any() else 0


def _check_colours(image: Image.Image, depth: Depth) -> None:
    """Raise UnreadableImage for colours that would be nearly black, according to the range that the file declares."""
    said = 1 << depth.significant if depth.significant else int(depth.white) + 1
    if depth.bits == 16 and 1 < said < _FULL and 0 < _largest_colour(image) < said:
        raise UnreadableImage(
            f"a 16-bit colour image must use all 16 bits, but this file declares values below {said}; save it with 8 "
            "bits"
        )


def _gray(image: Image.Image, depth: Depth) -> Image.Image:
    values: npt.NDArray[Any] = np.asarray(image)
    if image.mode == "F":
        if not depth.white:
            raise UnreadableImage(
                "an image must have integer pixels, but got floating-point ones, whose range the file does not "
                "declare; save it with 8 or 16 bits"
            )
        scaled = np.nan_to_num(values.astype(np.float64) / depth.white, nan=-1.0, posinf=2.0, neginf=-1.0)
        if scaled.min() < 0 or scaled.max() > 1:
            raise UnreadableImage(f"pixels must be from 0 to {depth.white:g}, as the file declares, but some are not")
        eight = np.rint(scaled * 255).astype(np.uint8)
    else:
        if depth.signed and depth.bits == 8:
            values = values.view(np.int8)
        whole = values.astype(np.int64)
        white = _white(whole, depth)
        eight = ((whole * 255 + white // 2) // white).astype(np.uint8)
    if depth.inverted:
        eight = 255 - eight
    clear = image.info.get("transparency")
    if type(clear) is int and image.mode.startswith("I;16"):
        eight = np.where(values == clear, np.uint8(255), eight)
    return Image.fromarray(eight)


def _white(values: npt.NDArray[np.int64], depth: Depth) -> int:
    """Return the value of white. Raises UnreadableImage if a value is out of range, or the range is unknown."""
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0:
        raise UnreadableImage(
            f"pixels must be 0 or more, but got {lowest}, and the file does not declare the value of black"
        )
    if depth.significant and 0 < highest < 1 << depth.significant:
        _check_unspread(values, depth.significant)
        return (1 << depth.significant) - 1
    if depth.white >= highest and depth.white:
        return int(depth.white)
    if depth.signed:
        return (1 << (depth.bits - 1)) - 1 if depth.bits <= 16 else _of_32_bits(highest)
    return _FULL if depth.bits <= 16 else _of_32_bits(highest)


def _of_32_bits(highest: int) -> int:
    if highest > _FULL or 0 < highest < 256:
        raise UnreadableImage(
            f"an integer image must have 8 or 16 bits, but got values up to {highest} in 32 bits, whose range "
            "the file does not declare; save it with 8 or 16 bits"
        )
    return _FULL


def _check_unspread(values: npt.NDArray[np.int64], bits: int) -> None:
    """Raise UnreadableImage if small values may be dark ones that were spread over 16 bits, as PNG prescribes."""
    if not (values & ((1 << (16 - bits)) - 1)).any():
        raise UnreadableImage(
            f"a 16-bit image must use all 16 bits, but got values up to {values.max()} in a file that declares {bits} "
            "significant bits, so they may be dark or not scaled; save it with 8 bits"
        )


def _tiff_depth(tags: Any, mode: str) -> Depth:
    bits = _first(tags.get(_BITS), 1)
    kind = _first(tags.get(_SAMPLE_FORMAT), 1)
    white = 0.0
    if not any(_first(tags.get(tag), 0) for tag in _MINIMA):
        # a maximum is white only if it is that of some depth, as other files store the largest value that occurs
        said = [_first(tags.get(tag), 0) for tag in _MAXIMA]
        depths = (1, 255, _FULL) if kind == _FLOAT else [(1 << n) - 1 for n in range(8, 17)]
        white = next((float(value) for value in said if value in depths), 0.0)
    if 8 < bits < 16:
        white = float((1 << bits) - 1)
    inverted = tags.get(_PHOTOMETRIC) == 0 and mode[:1] in ("I", "F")
    return Depth(bits=bits, white=white, signed=kind == _SIGNED, inverted=inverted)


def _first(value: Any, default: int) -> Any:
    """Return a tag's number, or the first of several."""
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int | float) else default


def _png_depth(file: BinaryIO) -> Depth:
    before = file.tell()
    file.seek(0)
    head = file.read(_PNG_SEARCHED)
    file.seek(before)
    bits = head[24] if len(head) > 24 else 8
    significant = 0
    start = 8
    while bits == 16 and start + 9 <= len(head):
        (length,), kind = struct.unpack_from(">I", head, start), head[start + 4 : start + 8]
        if kind == b"sBIT" and length:
            significant = head[start + 8]
        if kind in (b"sBIT", b"IDAT"):
            break
        start += 12 + length
    return Depth(bits=bits, significant=significant if 0 < significant < 16 else 0)
