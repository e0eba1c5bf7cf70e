"""Names and numbers that annotations contain: paths of files inside the data, identifiers, sides of boxes."""

import math
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_MOST_CHARS = 4096

Number = int | str
"""Identifier of an image or a category in JSON."""


def inner_path(name: object) -> PurePosixPath | None:
    """Return the relative path that `name` contains.

    Returns None if it is not a path inside of a folder, on any system: not text, empty, absolute, a URL, or with a
    parent folder.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > _MOST_CHARS or "\0" in name:
        return None
    if _SCHEME.match(name) or PureWindowsPath(name).anchor:
        return None
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    path = PurePosixPath(name)
    return None if path.is_absolute() or ".." in PureWindowsPath(name).parts or not path.name else path


def number_of(value: object) -> Number | None:
    """Return an identifier in one form, so that 7, 7.0 and "7" are the same; None if `value` is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and 0 < len(value) <= _MOST_CHARS:
        return int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else value
    return None


def numbers(values: Iterable[object]) -> list[float] | None:
    """Return values, also in text, as finite numbers; None if one of them is none."""
    result = []
    for value in values:
        if type(value) not in (int, float, str):
            return None
        try:
            number = float(value)  # type: ignore[arg-type]
        except (ValueError, OverflowError):  # an integer may be larger than any float
            return None
        if not math.isfinite(number) or abs(number) > 1e9:
            return None
        result.append(number)
    return result


def relative_name(path: Path, root: Path) -> str:
    """Return a file's path relative to the data."""
    return path.relative_to(root).as_posix()
