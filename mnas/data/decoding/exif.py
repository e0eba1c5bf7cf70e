"""Read the orientation of an image from its metadata, and remove metadata that decoders fail on.

Cameras and editors write tags of wrong types, cut tables off and divide by zero, and every viewer shows the picture.
So only the orientation is read here, and an invalid one means "as stored".
"""

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

ORIENTATION = 0x0112
"""Number of the orientation tag."""
_WHOLE = {1: "B", 3: "H", 4: "I"}  # TIFF's types of whole numbers
_XMP = re.compile(rb"tiff:Orientation(?:\s*=\s*[\"']|>)([1-8])[\"'<]")
_PNG_METADATA = {b"eXIf", b"iTXt", b"tEXt", b"zTXt"}
_PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"sBIT"}
_JPEG_KEPT = {0xE0, 0xEE}  # JFIF and Adobe, which say what the colours mean
# TIFF's tags that a decoder needs: sizes, kinds and places of the pixels, and what the colours mean
_TIFF_KEPT = {
    254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 280, 281, 284, 292, 293, 317, 320, 322, 323, 324,
    325, 332, 338, 339, 340, 341, 347, 529, 530, 531, 532,
}  # fmt: skip


def exif_orientation(exif: object) -> int:
    """Return the orientation in a block of EXIF, 1 to 8; 1 if it is missing or invalid."""
    if not isinstance(exif, bytes):
        return 1
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, length = struct.unpack_from(f"{order}HHI", tiff, entry)
            if tag == ORIENTATION:
                valid = length == 1 and kind in _WHOLE
                return valid_orientation(struct.unpack_from(order + _WHOLE[kind], tiff, entry + 8)[0]) if valid else 1
    except struct.error:  # cut off
        pass
    return 1


def xmp_orientation(xmp: object) -> int:
    """Return the orientation in a block of XMP, as `exif_orientation` does."""
    text = xmp.encode(errors="replace") if isinstance(xmp, str) else xmp
    match = _XMP.search(text) if isinstance(text, bytes) else None
    return int(match[1]) if match else 1


def valid_orientation(value: object) -> int:
    """Return `value` if it is one of the eight orientations, else 1."""
    return value if type(value) is int and 1 <= value <= 8 else 1


def profile_orientation(text: object) -> int:
    """Return the orientation in a PNG's "Raw profile type exif" by ImageMagick: three lines, then hexadecimal."""
    try:
        return exif_orientation(bytes.fromhex("".join(str(text).split("\n")[3:])))
    except ValueError:
        return 1


def metadata_follows_pixels(file: BinaryIO) -> bool:
    """Return whether a PNG file has EXIF or text behind its pixels, so that only decoding it shows its orientation.

    Also returns True for a file that is cut off. The position in the file stays the same.
    """
    before, pixels = file.tell(), False
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"IEND":
                return False
            if pixels and kind in _PNG_METADATA:
                return True
            pixels = pixels or kind == b"IDAT"
            file.seek(length + 4, 1)
        return True
    finally:
        file.seek(before)


def without_metadata(file: bytes) -> bytes | None:
    """Return a JPEG, PNG or TIFF file without the metadata that decoding does not need; None for other files."""
    try:
        if file.startswith(b"\xff\xd8\xff"):
            return b"\xff\xd8" + b"".join(_jpeg_segments(file))
        if file.startswith(b"\x89PNG\r\n\x1a\n"):
            return file[:8] + b"".join(_png_chunks(file))
        if file.startswith((b"II*\0", b"MM\0*")):
            return _plain_tiff(file)
    except (struct.error, IndexError):  # cut off
        pass
    return None


def jpeg_orientation(file: bytes) -> int:
    """Return the orientation in a JPEG file's first block of EXIF."""
    try:
        for marker, start, end in _jpeg_headers(file):
            if marker == 0xE1 and file.startswith(b"Exif\0\0", start + 4):
                return exif_orientation(file[start + 4 : end])
    except (struct.error, IndexError):
        pass
    return 1


def _jpeg_headers(file: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of each segment before the first scan, then of the scan with all that follows."""
    start = 2
    while start < len(file):
        if file[start] != 0xFF:
            start += 1  # decoders also skip to the next marker
            continue
        marker = file[start + 1]
        if marker in (0xFF, 0x00, 0x01) or 0xD0 <= marker <= 0xD7:
            start += 1
            continue
        if marker in (0xDA, 0xD9):
            yield marker, start, len(file)
            return
        (length,) = struct.unpack_from(">H", file, start + 2)
        yield marker, start, start + 2 + length
        start += 2 + length


def _jpeg_segments(file: bytes) -> Iterator[bytes]:
    for marker, start, end in _jpeg_headers(file):
        if marker in _JPEG_KEPT or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            yield file[start:end]


def _png_chunks(file: bytes) -> Iterator[bytes]:
    start = 8
    while start < len(file):
        (length,) = struct.unpack_from(">I", file, start)
        if file[start + 4 : start + 8] in _PNG_KEPT:
            yield file[start : start + 12 + length]
        start += 12 + length


def _plain_tiff(file: bytes) -> bytes:
    """Return the file with every other tag of the first page set to 1; removing tags would change their order."""
    order = "<" if file[:2] == b"II" else ">"
    plain = bytearray(file)
    (start,) = struct.unpack_from(f"{order}I", file, 4)
    (count,) = struct.unpack_from(f"{order}H", file, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from(f"{order}H", file, entry)[0] not in _TIFF_KEPT:
            struct.pack_into(f"{order}HIHH", plain, entry + 2, 3, 1, 1, 0)
    return bytes(plain)
