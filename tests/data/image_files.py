"""Write image files byte by byte, with features that no writer of Pillow offers."""

import struct
import zlib

import numpy as np

_TYPES = {1: "B", 3: "H", 4: "I", 11: "f"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 11: 4, 12: 8}

Tags = dict[int, tuple[int, object]]


def _entries(tags: Tags, order: str, base: int) -> bytes:
    """Return a TIFF directory at offset `base`, followed by values that do not fit into its entries."""
    entries, behind = struct.pack(f"{order}H", len(tags)), b""
    for tag, (kind, value) in sorted(tags.items()):
        if isinstance(value, bytes):
            raw, count = value, len(value) // _SIZES[kind]
        else:
            values = value if isinstance(value, tuple) else (value,)
            raw, count = struct.pack(f"{order}{len(values)}{_TYPES[kind]}", *values), len(values)
        if len(raw) > 4:
            place = base + 2 + 12 * len(tags) + 4 + len(behind)
            behind += raw
            raw = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, kind, count) + raw.ljust(4, b"\0")
    return entries + bytes(4) + behind


def tiff(pixels: np.ndarray, tags: Tags | None = None, order: str = "<") -> bytes:
    """Return an uncompressed TIFF of pixels (H, W) or (H, W, C), in the byte order of the array."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    data = pixels.tobytes()
    known: Tags = {
        256: (4, width), 257: (4, height), 258: (3, (8 * pixels.itemsize,) * channels), 259: (3, 1),
        262: (3, 1 if channels == 1 else 2), 273: (4, 8), 277: (3, channels), 278: (4, height), 279: (4, len(data)),
    }  # fmt: skip
    mark = b"II*\0" if order == "<" else b"MM\0*"
    base = 8 + len(data) + len(data) % 2
    head = mark + struct.pack(f"{order}I", base)
    return head + data + bytes(len(data) % 2) + _entries(known | (tags or {}), order, base)


def exif(tags: Tags, order: str = "<") -> bytes:
    """Return a block of EXIF for a JPEG."""
    return (
        b"Exif\0\0" + (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8) + _entries(tags, order, 8)
    )


def png(pixels: np.ndarray, *chunks: tuple[bytes, bytes], color_type: int = 0, after: bool = False) -> bytes:
    """Return a PNG of uint8 or uint16 pixels with more chunks before (or after) its pixels."""
    height, width = pixels.shape[:2]
    depth = 8 * pixels.itemsize
    rows = b"".join(b"\0" + row.astype(f">u{pixels.itemsize}").tobytes() for row in pixels)
    more = b"".join(_chunk(*chunk) for chunk in chunks)
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + head + (body + more if after else more + body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
