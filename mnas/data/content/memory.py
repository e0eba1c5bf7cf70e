"""A cache of the digests of files, so that an unchanged folder costs one stat per file.

Each folder's digests are in one file, written as a whole or not at all. Processes do not wait for each other: if two
write at the same time, one wins, and the other's digests are computed again later. No failure here can make a digest
wrong: a damaged file is ignored, and a digest that cannot be written is not cached.
"""

import contextlib
import hashlib
import os
import struct
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from mnas.atomic import write_atomic
from mnas.data.content.digests import Digest, Stamp, digest_file, stamp_of
from mnas.data.content.mounts import stat_tells_change
from mnas.readers import read_regular

MOST_FOLDERS = 64
"""Number of folders whose digests are cached; the most recently used ones are kept."""
MOST_BYTES = 1_000_000_000
"""Limit on the total size of these files, in bytes; it suffices for about ten million images."""
_TASK = 64  # files digested by one thread in one go: a small one takes less time to digest than to hand over
_MAGIC = b"mnas digests 1\n"
_STAMP = struct.Struct("<5Q")
_ROW = _STAMP.size + hashlib.sha256().digest_size
_MASK = (1 << 64) - 1  # times before 1970 and after 2262 too
_ABANDONED_S = 3600  # age of a temporary file whose writer was killed


class DigestMemory:
    """The cached digests of data sets' files, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def digests(self, paths: Sequence[str]) -> list[bytes]:
        """Return the SHA-256 of each file; a file is read only if its stat does not prove that it is cached.

        `UNREADABLE` stands for a file that cannot be read. Raises OSError if this process cannot open any more files.
        """
        if not paths:
            return []
        full = absolute(paths)
        file = self._folder / f"{hashlib.sha256(os.fsencode(_common(full))).hexdigest()[:32]}.bin"
        stored = _read(file)
        rows: list[bytes] = [b""] * len(full)  # stamp and digest
        local: dict[int, bool] = {}  # by device
        new: list[int] = []
        for index, path in enumerate(full):
            row = stored.get(path)
            if row is not None and row[: _STAMP.size] == _stamp_now(path, local):
                rows[index] = row
            else:
                new.append(index)
        digests = digest_all([full[index] for index in new])
        for index, digest in zip(new, digests, strict=True):
            trusted = digest.stamp is not None and _is_local(digest.stamp[0], full[index], local)
            rows[index] = (_packed(digest.stamp) if trusted and digest.stamp else b"") + digest.sha256
        with contextlib.suppress(OSError):  # without the cache it is only slower
            asked = dict(zip(full, rows, strict=True))
            cached = {path: row for path, row in asked.items() if len(row) == _ROW}
            if any(stored.get(path) != row for path, row in cached.items()):
                others = {path: row for path, row in stored.items() if path not in asked and os.path.lexists(path)}
                self._write(file, cached | others)
            elif stored:
                os.utime(file)  # marks the file as just used
        return [row[-32:] for row in rows]

    def _write(self, path: Path, rows: Mapping[str, bytes]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _encoded(rows))
        _remove_abandoned(self._folder)
        used = sorted(self._folder.glob("*.bin"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        total = 0
        for place, file in enumerate(used):
            total += file.stat().st_size
            if place >= MOST_FOLDERS or (place and total > MOST_BYTES):
                file.unlink(missing_ok=True)


def digest_all(paths: Sequence[str]) -> list[Digest]:
    """Read all files, several in parallel, in the order of `paths`. Raises what `digest_file` raises."""
    if len(paths) <= _TASK:
        return [digest_file(path) for path in paths]
    tasks = [paths[i : i + _TASK] for i in range(0, len(paths), _TASK)]
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:  # some threads wait for the disk
        return list(chain.from_iterable(pool.map(lambda task: [digest_file(path) for path in task], tasks)))


def absolute(paths: Sequence[str]) -> list[str]:
    """Return absolute forms of the paths; for a million paths, `os.path.abspath` would take seconds."""
    if all(map(os.path.isabs, paths)):
        return list(paths)
    here = os.getcwd()
    return [os.path.join(here, path) for path in paths]


def _common(paths: Sequence[str]) -> str:
    """Return the deepest folder that contains all paths."""
    return os.path.commonpath([os.path.dirname(min(paths)), os.path.dirname(max(paths))])


def _stamp_now(path: str, local: dict[int, bool]) -> bytes | None:
    """Return the packed stamp; None if the file's stat proves nothing."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return _packed(stamp_of(status)) if _is_local(status.st_dev, path, local) else None


def _is_local(device: int, path: str, local: dict[int, bool]) -> bool:
    if device not in local:
        local[device] = stat_tells_change(path)
    return local[device]


def _packed(stamp: Stamp) -> bytes:
    device, inode, size, mtime_ns, ctime_ns = stamp
    return _STAMP.pack(device & _MASK, inode & _MASK, size & _MASK, mtime_ns & _MASK, ctime_ns & _MASK)


def _encoded(rows: Mapping[str, bytes]) -> bytes:
    """Return a header with the digest of the rest, then rows, then names, which contain no NUL."""
    body = len(rows).to_bytes(8, "little") + b"".join(rows.values()) + b"\0".join(map(os.fsencode, rows))
    return _MAGIC + hashlib.sha256(body).digest() + body


def _read(path: Path) -> dict[str, bytes]:
    """Return the cached rows by path; none if the file is absent or damaged."""
    try:
        content = memoryview(read_regular(path, MOST_BYTES))
    except (OSError, ValueError):
        return {}
    body = content[len(_MAGIC) + 32 :]
    if content[: len(_MAGIC) + 32] != _MAGIC + hashlib.sha256(body).digest():
        return {}
    count = int.from_bytes(body[:8], "little")
    end = 8 + count * _ROW
    names = os.fsdecode(bytes(body[end:])).split("\0") if count else []
    rows = bytes(body[8:end])
    return {name: rows[i * _ROW : (i + 1) * _ROW] for i, name in enumerate(names)}


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary files of writers that were killed."""
    for file in folder.glob(".*.tmp"):
        if file.stat().st_mtime < time.time() - _ABANDONED_S:
            file.unlink(missing_ok=True)
