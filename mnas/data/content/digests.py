"""SHA-256 of files and of a data set's content."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

_TASK = 64  # files digested by one thread in one go: small ones take less time than handing them over
_BLOCK = 1 << 20


def digest_files(paths: Sequence[str]) -> list[bytes]:
    """Return the SHA-256 of each file's bytes, in the order of `paths`. Raises OSError."""
    tasks = [paths[i : i + _TASK] for i in range(0, len(paths), _TASK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(chain.from_iterable(pool.map(lambda task: [digest_file(path) for path in task], tasks)))


def digest_file(path: str) -> bytes:
    """Return the SHA-256 of the file's bytes. Raises OSError."""
    digest = hashlib.sha256()
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        while block := os.read(handle, _BLOCK):
            digest.update(block)
    finally:
        os.close(handle)
    return digest.digest()


def content_of(classes: Sequence[str], parts: Mapping[str, Sequence[tuple[str, bytes]]]) -> str:
    """Return the content digest of a data set, 64 hexadecimal digits.

    Args:
        classes: names in the order of their labels.
        parts: relative name and SHA-256 of each file, by part; their order makes no difference.
    """
    digest = hashlib.sha256(b"mnas content 1")
    for name in classes:
        _add(digest, name)
    for part, files in sorted(parts.items()):
        digest.update(b"\1")
        _add(digest, part)
        for name, found in sorted(files):
            _add(digest, name)
            digest.update(found)
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", name: str) -> None:
    encoded = os.fsencode(name)
    digest.update(len(encoded).to_bytes(4, "little") + encoded)
