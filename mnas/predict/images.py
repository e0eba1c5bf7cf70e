"""Images wherever they are: files, folders, globs, URLs; each read as a model or as a person is to see it."""

import glob
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

from mnas.data.decoders import SUFFIXES, opened
from mnas.data.image import Pixels, read_image

TIMEOUT_S = 20.0
"""For a server to answer; a whole download may take `MOST_DOWNLOAD_S`."""
MOST_DOWNLOAD_S = 120.0
MOST_BYTES = 64_000_000
_CHUNK = 1 << 16


def is_url(name: str) -> bool:
    """Whether `name` is to be downloaded."""
    return name.lower().startswith(("http://", "https://"))


def find_images(arguments: Sequence[str], complain: Callable[[str, str], None]) -> Iterator[str]:
    """The paths and URLs that the arguments name, in their order, each once.

    A folder stands for all images below it, by name; a pattern (`*`, `?`, `[...]`, `**`) for all that it fits. A file
    is taken as it is, whatever its suffix.

    Args:
        complain: called with an argument and why it names no image.
    """
    seen: set[str] = set()
    for argument in arguments:
        found = _found(argument)
        if isinstance(found, str):
            complain(argument, found)
            continue
        for name in found:
            if name not in seen:
                seen.add(name)
                yield name


def fetch(name: str) -> str | bytes:
    """A path as it is, the content of a URL. Raises ValueError where it cannot be downloaded."""
    return _download(name) if is_url(name) else name


def read_pixels(source: str | bytes, size: int, crop: float) -> Pixels:
    """The image at a path or URL, or of `fetch`, as a model is to see it: uint8 (size, size, 3).

    Raises:
        ValueError: there is none, or it is no image; one line that does not repeat the name.
    """
    return read_image(_content(source), size, crop)


def read_picture(source: str | bytes, side: int) -> Image.Image:
    """The whole image, upright, RGB, no side longer than `side`; else as `read_pixels`."""
    with opened(_content(source)) as image:
        picture = image.rgb((side, side))
        picture.thumbnail((side, side))
        return picture


def _found(argument: str) -> list[str] | str:
    """What an argument names, or why it names nothing."""
    if is_url(argument) or os.path.isfile(argument):
        return [argument]
    if os.path.isdir(argument):
        return _in_folder(argument) or "there are no images (jpg, png, ...) in this folder"
    if "://" in argument:
        return "a URL must begin with http:// or https://"
    if os.path.exists(argument):
        return "it is no ordinary file"  # a pipe, a device
    if not glob.has_magic(argument):
        return "there is no such file"
    matches = sorted(glob.glob(os.path.expanduser(argument), recursive=True))
    files = [name for match in matches for name in (_in_folder(match) if os.path.isdir(match) else [match])]
    return files or "no file fits this pattern"


def _in_folder(folder: str) -> list[str]:
    """All images below it, without hidden ones."""
    names = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = (f for f in sorted(files) if not f.startswith(".") and os.path.splitext(f)[1].lower() in SUFFIXES)
        names += [os.path.join(parent, file) for file in images]
    return names


def _content(source: str | bytes) -> Path | bytes:
    fetched = fetch(source) if isinstance(source, str) else source
    return fetched if isinstance(fetched, bytes) else Path(fetched)


def _download(url: str) -> bytes:
    """The bytes at a URL. Raises ValueError on any failure, on more than `MOST_BYTES`, and when it takes too long."""
    request = urllib.request.Request(url, headers={"User-Agent": "mnas", "Accept": "image/*,*/*;q=0.5"})
    deadline = time.monotonic() + MOST_DOWNLOAD_S
    parts: list[bytes] = []
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            if urlsplit(response.url).scheme not in ("http", "https"):  # urllib would follow a redirect to ftp
                raise ValueError(f"it leads to {response.url}")
            expected = response.length
            while part := response.read1(_CHUNK):
                parts.append(part)
                if sum(map(len, parts)) > MOST_BYTES:
                    raise ValueError(f"it is larger than {MOST_BYTES // 1_000_000} MB")
                if time.monotonic() > deadline:
                    raise ValueError(f"it took more than {MOST_DOWNLOAD_S:.0f} s")
            if expected is not None and (got := sum(map(len, parts))) < expected:
                raise ValueError(f"the server sent {got} of {expected} bytes")
    except urllib.error.HTTPError as error:
        if 300 <= error.code < 400 and "infinite loop" in str(error.reason):  # urllib's own words take three lines
            raise ValueError("the server redirects it in circles, or too often") from None
        raise ValueError(f"the server says {error.code} {_line(error.reason)}") from None
    except urllib.error.URLError as error:
        raise ValueError(f"it cannot be downloaded: {_line(error.reason)}") from None
    except (OSError, http.client.HTTPException, UnicodeError) as error:  # while reading, or a URL of odd characters
        raise ValueError(f"it cannot be downloaded: {_line(error)}") from None
    return b"".join(parts)


def _line(error: object) -> str:
    """Its words on one line; without what a server could steer a terminal by."""
    words = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return " ".join(words.split()) or type(error).__name__
