"""Digests by which a file shows that it holds what was written: SHA-256 of it, the digest's own digits as zeros.

The digits stand in the file's own text (a JSON value), so one file is all there is to copy. A file is written with a
blank in their place, which `sealed` replaces; the length stays the same, so nothing else moves.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any, Literal

KEY = "digest"
"""Name of the digest among the values that a file says of itself."""
DIGITS = 64

State = Literal["intact", "changed", "unsealed"]
"""`unsealed`: the file carries no digest, as it was written before files had one."""


class ChangedFileError(ValueError):
    """A file of ours that no longer holds what was written, or belongs to another network; one line."""


def blank(values: Mapping[str, Any]) -> str:
    """Return digits that hold the place of a digest; they follow from the values, and occur nowhere else by chance."""
    return hashlib.sha256(f"blank {json.dumps(values, sort_keys=True)}".encode()).hexdigest()


def sealed(content: bytes, placeholder: str) -> bytes:
    """Return `content` with its digest in the place of `placeholder`, which it holds."""
    place = content.index(placeholder.encode())
    return content[:place] + _digest(content, place).encode() + content[place + DIGITS :]


def state_of(content: bytes, digest: object) -> State:
    """Return whether `content` is what was sealed with `digest`, its value under `KEY`; None where it has none."""
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
    """Refuse a changed file, and say once of one without a digest that it carries none.

    Args:
        name: the file, for the messages.
        remedy: what to do about a changed file.

    Raises:
        ChangedFileError: `state` is `changed`.
    """
    if state == "changed":
        raise ChangedFileError(f"{name!r} was changed after mnas wrote it: its digest is of other content; {remedy}")
    if state == "unsealed":
        notice_unsealed(name)


@functools.cache
def notice_unsealed(name: str) -> None:
    """Log a line, once a file and process, that a file carries no digest."""
    _LOGGER.warning("%r carries no digest: an earlier version of mnas wrote it, so changes to it go unnoticed", name)


@functools.cache
def notice_changed(name: str) -> None:
    """Log a line, once a file and process, that a changed file is used all the same."""
    _LOGGER.warning("%r was changed after mnas wrote it", name)


_LOGGER = logging.getLogger("mnas")
