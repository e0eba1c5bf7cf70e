"""Find and read images in files, folders, globs and URLs, either as a model needs them or for people."""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

from mnas.data.decoding.decoders import SUFFIXES, opened
from mnas.data.image import Pixels, read_image
from mnas.data.web import download, is_url
from mnas.predict.video import is_video

TIMEOUT_S = 30.0
"""Time limit for a whole download in seconds, including redirects."""
MOST_BYTES = 64_000_000
_UNREAD = frozenset({
    ".heic", ".heif", ".jxl", ".svg", ".psd", ".eps", ".exr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf",
    ".rw2", ".raf",
})  # fmt: skip
"""Suffixes of common image formats that mnas does not decode; each such file is reported."""


def find_images(arguments: Sequence[str], complain: Callable[[str, str], None]) -> Iterator[str]:
    """Yield the paths and URLs that the arguments name, in their order, without duplicates.

    A folder means all images below it, sorted by name; a pattern (`*`, `?`, `[...]`, `**`) means all its matches. A
    file may have any suffix.

    Args:
        complain: called with each argument that names no image, and the reason.
    """
    seen: set[str] = set()
    for argument in arguments:
        names = _found(argument, complain)
        if isinstance(names, str):
            complain(argument, names)
            continue
        for name in names:
            if name not in seen:
                seen.add(name)
                yield name


def fetch(name: str) -> str | bytes:
    """Return a path unchanged, or the content of a URL. Raises ValueError where the download fails."""
    return download(name, most_bytes=MOST_BYTES, most_s=TIMEOUT_S) if is_url(name) else name


def read_pixels(source: str | bytes, size: int, crop: float) -> Pixels:
    """Return the image at a path or URL, or from `fetch`, as a model needs it: uint8 (size, size, 3).

    Raises:
        ValueError: the image is missing or cannot be decoded; one line that does not repeat the name.
    """
    return read_image(_content(source), size, crop)


def read_picture(source: str | bytes, side: int) -> Image.Image:
    """Return the whole image, upright, RGB, no side longer than `side`; otherwise like `read_pixels`."""
    with opened(_content(source)) as image:
        picture = image.rgb((side, side))
        picture.thumbnail((side, side))
        return picture


def _found(argument: str, complain: Callable[[str, str], None]) -> list[str] | str:
    """Return the images that an argument names, or the reason why it names none."""
    if is_url(argument) and is_video(urlsplit(argument).path):
        return "mnas reads videos only from files; download it, and name the file"
    if is_url(argument) or os.path.isfile(argument):
        return [argument]
    if os.path.isdir(argument):
        return _in_folder(argument, complain) or "the folder contains no images (jpg, png, ...)"
    if "://" in argument:
        return "a URL must begin with http:// or https://"
    if os.path.lexists(argument):
        return _no_file(argument)
    if not glob.has_magic(argument):
        return "there is no such file"
    files: list[str] = []
    matches = sorted(glob.glob(os.path.expanduser(argument), recursive=True))
    for match in matches:
        if os.path.isdir(match):
            files += _in_folder(match, complain)
        elif os.path.isfile(match):
            files.append(match)
        else:
            complain(match, _no_file(match))
    return files if matches else "no file matches this pattern"


def _no_file(path: str) -> str:
    """Return why an existing path is not a regular file, without opening it, as a pipe would block."""
    return "it is not a regular file" if os.path.exists(path) else "it is a broken link"


def _in_folder(folder: str, complain: Callable[[str, str], None]) -> list[str]:
    """Return all images below a folder, without hidden ones; follows links, but visits each folder once."""
    names: list[str] = []
    entered: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        stat = os.stat(parent)
        if (stat.st_dev, stat.st_ino) in entered:
            folders.clear()
            continue
        entered.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            suffix, path = os.path.splitext(file)[1].lower(), os.path.join(parent, file)
            if file.startswith(".") or suffix not in SUFFIXES | _UNREAD:
                continue
            if suffix in _UNREAD:
                complain(path, f"mnas does not read {suffix} images; convert it to JPEG or PNG")
            elif not os.path.isfile(path):
                complain(path, _no_file(path))
            else:
                names.append(path)
    return names


def _content(source: str | bytes) -> Path | bytes:
    fetched = fetch(source) if isinstance(source, str) else source
    return fetched if isinstance(fetched, bytes) else Path(fetched)
