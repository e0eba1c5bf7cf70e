"""Tar files on disk or on a web server, read front to back; nothing is unpacked to disk or opened by name."""

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mnas.data.web import UrlFile, is_url
from mnas.readers import open_regular

MOST_MEMBER_BYTES = 256_000_000
"""Largest file in a tar."""
_FREE_BYTES = 4_000_000_000  # size that any compressed tar may unpack to ...
_MOST_RATIO = 100  # ... plus this many times its own size, although images hardly shrink at all
_BUFFER = 1 << 20
_SCHEME = re.compile(r"(?i)([a-z][a-z0-9+.-]+)://|(pipe):")
_WAYS = {
    "gs": "https://storage.googleapis.com/BUCKET/...",
    "s3": "https://BUCKET.s3.amazonaws.com/...",
    "hf": "https://huggingface.co/datasets/NAME/resolve/main/...",
}
_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


def location(name: str) -> str:
    """Return the name that a user typed in a form that `opened` reads: a path, or a URL of http or https.

    Raises:
        ValueError: a command (`pipe:`), or a URL of another kind.
    """
    if is_url(name):
        return name
    match = _SCHEME.match(name)
    if match is None:
        return name
    scheme = (match[1] or match[2]).lower()
    if scheme == "file":
        return url2pathname(urlsplit(name).path)
    if scheme == "pipe":
        raise ValueError(
            f"shards must be files or URLs of http or https, but got the command {name[:200]!r}, and mnas runs none. "
            "Download the shards to a folder, or mount the storage, and name that folder."
        )
    way = f"use {_WAYS[scheme]}, or download them" if scheme in _WAYS else "download them"
    raise ValueError(f"shards must be files or URLs of http or https, but got {name[:200]!r}; {way}")


@contextmanager
def opened(place: str) -> Iterator[io.BufferedReader]:
    """Open the bytes at a path or a URL, front to back. Raises OSError."""
    if is_url(place):
        with closing(UrlFile(place)) as raw:
            yield io.BufferedReader(raw, _BUFFER)
    else:
        with open_regular(place) as file:
            yield cast(io.BufferedReader, file)


def samples(place: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, content by suffix) of neighbouring files whose names are equal up to the first dot, as in WebDataset.

    Links, devices and folders in the tar are ignored.

    Raises:
        OSError, ValueError, tarfile.TarError, EOFError, zlib.error: the tar cannot be read to its end, a file in it is
            too large, or two have the same name.
    """
    current, files = "", dict[str, bytes]()
    for name, content in _members(place):
        match = _KEY.fullmatch(name)
        if match is None:
            continue
        key, suffix = match[1], match[2].lower()
        if key != current:
            if files:
                yield current, files
            current, files = key, {}
        if suffix in files:
            raise ValueError(f"it has two files named {name[:200]!r}")
        files[suffix] = content
    if files:
        yield current, files


def names(place: str) -> Iterator[str]:
    """Yield the names of all files in a tar. Raises as `samples`."""
    with opened(place) as file:
        mark = file.read(2)
        file.seek(0)
        if mark == b"\x1f\x8b":
            with tarfile.open(fileobj=_Unpacked(file), mode="r|") as stream:
                yield from (member.name for member in _checked(stream))
        else:
            with tarfile.open(fileobj=file, mode="r:") as tar:  # seeks past the content of the files
                yield from (member.name for member in _checked(tar))


def _members(place: str) -> Iterator[tuple[str, bytes]]:
    with opened(place) as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        with tarfile.open(fileobj=_Unpacked(file) if packed else file, mode="r|") as tar:
            for member in _checked(tar):
                if _META.match(member.name):
                    continue
                content = tar.extractfile(member)
                assert content is not None  # it is a regular file
                yield member.name, content.read()
                tar.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps a record of every file


def _checked(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files. Raises ValueError for an impossible size."""
    for member in tar:
        # a sparse file may claim any size, and a negative size would send tarfile back to the start in an endless loop
        if not 0 <= member.size <= MOST_MEMBER_BYTES:
            raise ValueError(f"a file in it has {member.size:,} bytes, more than the limit of {MOST_MEMBER_BYTES:,}")
        if member.isreg():
            yield member


class _Unpacked(io.RawIOBase):
    """The unpacked content of a gzip file; a bomb raises OSError."""

    def __init__(self, packed: BinaryIO) -> None:
        self._counted = _Counted(packed)
        self._file = gzip.GzipFile(fileobj=self._counted, mode="rb")
        self._got = 0

    def read(self, size: int = -1) -> bytes:
        try:
            part = self._file.read(size)
        except zlib.error as error:
            raise OSError(str(error)) from None
        self._got += len(part)
        if self._got > _FREE_BYTES + _MOST_RATIO * self._counted.got:
            raise OSError(f"it unpacks to more than {_MOST_RATIO} times its size")
        return part


class _Counted:
    """A file that counts the bytes read from it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.got = 0

    def read(self, size: int = -1) -> bytes:
        part: bytes = self._file.read(size)
        self.got += len(part)
        return part

    def seek(self, place: int) -> int:
        raise io.UnsupportedOperation("it can only be read front to back")
