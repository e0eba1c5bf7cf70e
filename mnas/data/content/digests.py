"""SHA-256 of files and of a data set's content."""

import errno
import hashlib
import io
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

UNREADABLE = hashlib.sha256(b"mnas: a file that cannot be read").digest()
"""Stand-in for the digest of a file that cannot be read and so counts as an unreadable image."""
SETTLED_NS = 2_000_000_000
"""Minimum age in ns of a file's last change when it is read. A younger file may change again without a new time, as
some file systems round times to 2 s."""
MOST_IN_MEMORY = 64_000_000
"""Largest file, in bytes, that is read into memory as a whole before it is decoded."""
MOST_BYTES = 2_000_000_000
"""Largest file, in bytes, that is read; larger ones count as unreadable. Images of 0.2 gigapixels are rejected anyway,
and a sparse file of any size costs nothing to make."""
_BLOCK = 1 << 20
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_TURNS = 3  # readings of a file that changes meanwhile
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # faults of this process, not of the file

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, mtime_ns and ctime_ns: where the file system is local, what changes with the content."""


class ContentChangedError(Exception):
    """A file has changed since its digest was taken."""


def changing_files(error: ContentChangedError, turns: int) -> str:
    """Return the message about files that change while they are read."""
    return (
        f"files must not change while mnas reads them, but {str(error)!r} changed {turns} times; wait until the files "
        "are complete, then try again"
    )


@dataclass(frozen=True)
class Digest:
    """The digest of a file as it was read."""

    sha256: bytes
    stamp: Stamp | None
    """Stamp of the file; None where the file may change without another stamp."""


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the fields of a file's stat that are compared."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def digest_file(path: str) -> Digest:
    """Return the SHA-256 of the file's bytes; `UNREADABLE` where it is no file or cannot be read.

    Raises OSError if this process cannot open any more files.
    """
    try:
        handle = _open(path)
        try:
            for _ in range(_TURNS):
                now, before = time.time_ns(), stamp_of(os.fstat(handle))
                sha256 = _sha256(handle, before[2])
                if stamp_of(os.fstat(handle)) == before:
                    # a time in the future, from a clock that was set back since, could recur
                    return Digest(sha256, before if max(before[3:]) + SETTLED_NS <= now else None)
            return Digest(sha256, None)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in _OURS:
            raise
        return Digest(UNREADABLE, None)


@contextmanager
def verified(path: str, sha256: bytes) -> Iterator[BinaryIO]:
    """Open the file, whose bytes are verified to have that digest.

    Raises:
        ContentChangedError: they have changed.
        OSError: the file cannot be read, as when its digest was taken.
    """
    try:
        file = os.fdopen(_open(path), "rb")
    except OSError as error:
        if sha256 == UNREADABLE and error.errno not in _OURS:
            raise
        raise ContentChangedError(path) from error
    with file:
        before = os.fstat(file.fileno())
        if before.st_size <= MOST_IN_MEMORY:
            try:
                content = file.read(before.st_size + 1)  # a larger argument would allocate that much memory first
            except OSError as error:
                if sha256 == UNREADABLE:
                    raise
                raise ContentChangedError(path) from error
            if hashlib.sha256(content).digest() != sha256:
                raise ContentChangedError(path)
            yield io.BytesIO(content)
            return
        if _sha256(file.fileno(), before.st_size) != sha256:
            raise ContentChangedError(path)
        try:
            yield file
        finally:
            if stamp_of(os.fstat(file.fileno())) != stamp_of(before):
                raise ContentChangedError(path)


def content_of(classes: Sequence[str], parts: Mapping[str, Sequence[tuple[str, bytes]]]) -> str:
    """Return the content digest of a data set, 64 hexadecimal digits.

    Args:
        classes: names in the order of their labels.
        parts: relative name and SHA-256 of each file, by part; their order makes no difference.
    """
    digest = hashlib.sha256(f"mnas content 1 {len(classes)} {len(parts)}\n".encode())
    for name in classes:
        _add(digest, name)
    for part, files in sorted(parts.items()):
        _add(digest, part)
        digest.update(len(files).to_bytes(8, "little"))
        for name, sha256 in sorted(files):
            _add(digest, name)
            digest.update(sha256)
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", name: str) -> None:
    encoded = os.fsencode(name)
    digest.update(len(encoded).to_bytes(4, "little") + encoded)


def _open(path: str) -> int:
    """Return a handle of the file, without waiting for a pipe.

    `mnas.readers.open_regular` also looks at the file before it opens it; for a million images that takes seconds.

    Raises:
        OSError: it cannot be opened, is not a regular file, or is larger than `MOST_BYTES`.
    """
    handle = os.open(path, os.O_RDONLY | _FLAGS)
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_size <= MOST_BYTES:
        return handle
    os.close(handle)
    if stat.S_ISREG(status.st_mode):
        raise OSError(errno.EFBIG, f"File larger than {MOST_BYTES / 1e9:g} GB", path)
    raise OSError(errno.EINVAL, "Not a regular file", path)


def _sha256(handle: int, size: int) -> bytes:
    """Return the SHA-256 of the whole file, which had that size a moment ago; its position is then the start."""
    os.lseek(handle, 0, os.SEEK_SET)
    block = os.read(handle, min(size + 1, _BLOCK))  # no larger: a megabyte of memory takes longer than a small file
    digest = hashlib.sha256(block)
    if len(block) != size:  # otherwise the whole file was read
        budget = MOST_BYTES  # of a file that grows while it is read
        while budget > 0 and (block := os.read(handle, _BLOCK)):
            digest.update(block)
            budget -= len(block)
    os.lseek(handle, 0, os.SEEK_SET)
    return digest.digest()
