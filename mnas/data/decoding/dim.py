"""Warn about images of 10, 12 or 14 bits in 16-bit files that do not declare it, which are read as nearly black."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mnas.data.decoding.decoders import Encoded, opened
from mnas.data.decoding.depth import UnreadableImage

_SUFFIXES = (".png", ".tif", ".tiff")
_LOOKED_AT, _DECODED = 64, 16  # most images of a data set to open and to decode


def used_bits_of(content: Encoded) -> int:
    """Return `mnas.data.decoding.depth.used_bits` of a file; 0 for an unreadable one, or one of another suffix."""
    if isinstance(content, Path) and content.suffix.lower() not in _SUFFIXES:
        return 0
    try:
        with opened(content) as image:
            return image.used_bits()
    except UnreadableImage:
        return 0


def dim_note(folder: Path, names: Sequence[str]) -> str:
    """Return a warning if 16-bit images among some of a folder's files use fewer bits; else an empty string."""
    likely = [name for name in names if name.lower().endswith(_SUFFIXES)]
    bits_of: dict[str, int] = {}
    for name in likely[:: max(1, len(likely) // _LOOKED_AT)]:
        if bits := used_bits_of(folder / name):
            bits_of[name] = bits
            if bits == 16 or len(bits_of) == _DECODED:
                break
    return dim_line(bits_of)


def dim_line(bits: Mapping[str, int]) -> str:
    """Return the warning for a mapping of names to used bits; empty if an image uses all 16."""
    most = max(bits.values(), default=16)
    if most == 16:
        return ""
    return (
        f"warning: 16-bit images use only their lowest {most} bits ({', '.join(list(bits)[:2])}), which their files do "
        "not declare, so they are read as nearly black. Scale them to 16 bits, or save them with 8."
    )
