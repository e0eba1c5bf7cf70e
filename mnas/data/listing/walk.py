"""List a folder: images, folders and other files; links are followed, each file and folder once."""

import errno
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mnas.data.image import SUFFIXES

Note = Callable[[str, str], None]
"""Called with (reason, path relative to the walked folder) of everything that is left out."""
Row = tuple[str, int, int]
"""(relative path, bytes, time of change) of an image; plain values, as there may be a million."""

HIDDEN, SYSTEM = "hidden", "of the operating system"
_SYSTEM = frozenset({
    "__macosx", ".ds_store", ".ipynb_checkpoints", "@eadir", "#recycle", "thumbs.db", "ehthumbs.db", "desktop.ini",
    "lost+found", "$recycle.bin", "system volume information", ".trash", ".trashes", ".spotlight-v100", ".fseventsd",
})  # fmt: skip
_SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")


@dataclass(frozen=True)
class Contents:
    """The direct contents of a folder."""

    folders: tuple[str, ...]
    """Names, sorted; without what never holds images (hidden, the operating system's), and links that lead up."""
    images: bool
    """Whether a file that may be an image is among its files."""


def passed_over(name: str) -> str:
    """Return why nothing of that name is looked at: hidden, or made by an operating system; empty for all others."""
    if name.casefold() in _SYSTEM:
        return SYSTEM
    return HIDDEN if name.startswith(".") else ""


def is_image(name: str) -> bool:
    """Whether the name ends as those of images do."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def contents_of(folder: Path, *, until_image: bool = False) -> Contents:
    """Return what lies directly in `folder`. Raises OSError where it cannot be read.

    Args:
        until_image: stop at the first image: of a class's folder with a million images no more is asked.
    """
    folders: list[str] = []
    with os.scandir(folder) as entries:
        images = False
        for entry in entries:
            if passed_over(entry.name):
                continue
            if _is_folder(entry):
                if not _leads_up(entry):
                    folders.append(entry.name)
            elif is_image(entry.name):
                images = True
                if until_image:
                    break
    return Contents(tuple(sorted(folders)), images)


def note_files(folder: Path, note: Note) -> None:
    """Note what lies in a folder that should hold folders only."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if reason := passed_over(entry.name):
                note(reason, entry.name)
            elif _is_folder(entry):
                if _leads_up(entry):
                    note("link to a folder that it lies in", entry.name)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                note("dangling link", entry.name)
            else:
                note("image outside of class folders" if is_image(entry.name) else _unsupported(entry.name), entry.name)


def images_below(folder: Path, note: Note) -> list[Row]:
    """Return all images below `folder`, sorted by name, each once however many links lead to it.

    Linked folders are followed, except to one that is read already or that the folder lies in. Where a file is there
    and links to it too, its own name counts. Raises OSError for a folder that cannot be read.
    """
    files: list[tuple[bool, str, os.stat_result]] = []
    any_link = False
    for name, status, linked in _files_below(folder, note):
        any_link = any_link or linked or status.st_nlink > 1
        files.append((linked, name, status))
    files.sort(key=lambda row: row[:2])  # what is no link comes first
    rows: list[Row] = []
    inodes: set[tuple[int, int]] = set()
    for _, name, status in files:
        key = status.st_dev, status.st_ino
        if any_link and status.st_ino:  # file systems without such numbers say 0
            if key in inodes:
                note("linked to an image that is used", name)
                continue
            inodes.add(key)
        rows.append((name, status.st_size, status.st_mtime_ns))
    return sorted(rows)


def _files_below(folder: Path, note: Note) -> Iterator[tuple[str, os.stat_result, bool]]:
    """(relative path, status, whether a link led there) of everything that may be an image."""
    real = folder.resolve()
    visited = {_key(place) for place in (real, *real.parents)}
    own: deque[tuple[str, str, bool]] = deque([(str(folder), "", False)])
    links: deque[tuple[str, str, bool]] = deque()
    while own or links:  # what is no link comes first, so that a folder is read under its own name
        path, before, linked = (own or links).popleft()
        if linked:
            if (key := _key(path)) in visited:
                note("link to a folder that is read already", before.rstrip("/"))
                continue
            visited.add(key)
        with os.scandir(path) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            name = before + entry.name
            if reason := passed_over(entry.name):
                note(reason, name)
                continue
            try:
                is_folder, status = entry.is_dir(), None
                if not is_folder and is_image(entry.name) and entry.is_file():
                    status = entry.stat()
                elif not is_folder:
                    note(_kind(entry), name)
            except OSError as error:
                note(_link_fault(entry, error), name)
                continue
            if is_folder:
                is_link = linked or entry.is_symlink()
                (links if is_link else own).append((entry.path, f"{name}/", is_link))
                if not is_link:
                    visited.add(_key(entry.path))
            elif status is not None:
                yield name, status, linked or entry.is_symlink()


def _key(path: Path | str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _kind(entry: os.DirEntry[str]) -> str:
    """Return why a file that is not an image is left out."""
    if entry.is_file():
        return _unsupported(entry.name)
    return "dangling link" if entry.is_symlink() else "no regular file"


def _link_fault(entry: os.DirEntry[str], error: OSError) -> str:
    """Return why a link cannot be followed; raise `error` where the entry is not a link."""
    if not entry.is_symlink():
        raise error
    return "link to itself" if error.errno == errno.ELOOP else f"link that cannot be followed ({error.strerror})"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        _link_fault(entry, error)
        return False


def _leads_up(entry: os.DirEntry[str]) -> bool:
    """Return whether the folder is a link to one that it lies in: as a class it would hold all others' images."""
    return entry.is_symlink() and Path(os.path.realpath(entry.path)) in (
        here := Path(os.path.realpath(os.path.dirname(entry.path))),
        *here.parents,
    )


def _unsupported(name: str) -> str:
    """Return a reason such as `unsupported .heic`; an unusual suffix is not repeated."""
    suffix = os.path.splitext(name)[1].lower()
    return f"unsupported {suffix}" if _SUFFIX.fullmatch(suffix) else "without a known suffix"
