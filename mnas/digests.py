"""Digests inside files, which show that a file is unchanged: its SHA-256, computed with zeros for the digest itself.

The digest is a JSON value in the file's own text, so a copy needs no second file. A file is written with a
placeholder, which `sealed` replaces; both have the same length, so nothing else moves.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any, Literal

KEY = "digest"
"""Key of the digest in a file's metadata."""
DIGITS = 64

State = Literal["intact", "changed", "unsealed"]
"""State of a file compared with its digest; `unsealed`: it was written before files had digests."""


class ChangedFileError(ValueError):
    """A file written by mnas was changed, or belongs to another network; a message of one line."""


def blank(values: Mapping[str, Any]) -> str:
    """Return a placeholder for a digest; it is derived from the values, so that it occurs nowhere else by chance."""
    return hashlib.sha256(f"blank {json.dumps(values, sort_keys=True)}".encode()).hexdigest()


def sealed(content: bytes, placeholder: str) -> bytes:
    """Return `content` with its `placeholder` replaced by the digest."""
    place = content.index(placeholder.encode())
    return with_digits(content, place, _digest(content, place))


def with_digits(content: bytes, place: int, digest: str) -> bytes:
    """Return `content` with `digest` at `place`; it copies the content once, as it may have many megabytes."""
    view = memoryview(content)
    return b"".join((view[:place], digest.encode(), view[place + DIGITS :]))


def state_of(content: bytes, digest: object) -> State:
    """Return the state of `content`, where `digest` is its value under `KEY` (None: it has no such value)."""
    if digest is None:
        return "unsealed"
    if type(digest) is not str or len(digest) != DIGITS or not digest.isascii():
        return "changed"
    place = content.find(digest.encode())
    return "intact" if place >= 0 and _digest(content, place) == digest else "changed"


def _digest(content: bytes, place: int) -> str:
    view = memoryview(content)
    digest = hashlib.sha256(view[:place])
    digest.update(b"0" * DIGITS)
    digest.update(view[place + DIGITS :])
    return digest.hexdigest()


def require_intact(state: State, name: str, remedy: str) -> None:
    """Reject a changed file; log a notice, once, if a file has no digest.

    Args:
        name: name of the file for the messages.
        remedy: advice for a changed file.

    Raises:
        ChangedFileError: `state` is `changed`.
    """
    if state == "changed":
        raise ChangedFileError(
            f"{name!r} was changed after mnas wrote it: its digest does not match its content; {remedy}"
        )
    if state == "unsealed":
        notice_unsealed(name)


@functools.cache
def notice_unsealed(name: str) -> None:
    """Log that a file has no digest, once per file and process."""
    _LOGGER.warning("%r has no digest because an earlier version of mnas wrote it, so changes to it go unnoticed", name)


@functools.cache
def notice_changed(name: str) -> None:
    """Log that a changed file is used anyway, once per file and process."""
    _LOGGER.warning("%r was changed after mnas wrote it", name)


_LOGGER = logging.getLogger("mnas")
