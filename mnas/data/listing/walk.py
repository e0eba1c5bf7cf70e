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
"""Callback that receives (reason, path relative to the listed folder) for each file or link that is left out."""
Row = tuple[str, int, int]
"""(relative path, bytes, time of change) of an image; plain values, as there may be a million."""

HIDDEN, SYSTEM = "hidden", "from the operating system"
_SYSTEM = frozenset({
    "__macosx", ".ds_store", ".ipynb_checkpoints", "@eadir", "#recycle", "thumbs.db", "ehthumbs.db", "desktop.ini",
    "lost+found", "$recycle.bin", "system volume information", ".trash", ".trashes", ".spotlight-v100", ".fseventsd",
})  # fmt: skip
_SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")


@dataclass(frozen=True)
class Contents:
    """The direct contents of a folder."""

    folders: tuple[str, ...]
    """Sorted names of folders; omits hidden folders, those of the operating system, and links to a parent folder."""
    images: bool
    """Whether the folder directly contains a file with an image suffix."""


def passed_over(name: str) -> str:
    """Return why files and folders of this name are ignored (`HIDDEN` or `SYSTEM`); empty if they are not."""
    if name.casefold() in _SYSTEM:
        return SYSTEM
    return HIDDEN if name.startswith(".") else ""


def is_image(name: str) -> bool:
    """Return whether the name has an image suffix."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def contents_of(folder: Path, *, until_image: bool = False) -> Contents:
    """Return the direct contents of `folder`. Raises OSError if it cannot be read.

    Args:
        until_image: stop at the first image, as a class folder may contain a million.
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
    """Note everything in a folder that should contain only folders."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if reason := passed_over(entry.name):
                note(reason, entry.name)
            elif _is_folder(entry):
                if _leads_up(entry):
                    note("link to a parent folder", entry.name)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                note("dangling link", entry.name)
            else:
                note("image outside of class folders" if is_image(entry.name) else _unsupported(entry.name), entry.name)


def images_below(folder: Path, note: Note) -> list[Row]:
    """Return all images below `folder`, sorted by name, each once however many links lead to it.

    Links to folders are followed, except to a folder that is already read or to a parent. If a file and links to it
    exist, the file's own name counts. Raises OSError for a folder that cannot be read.
    """
    files: list[tuple[bool, str, os.stat_result]] = []
    any_link = False
    for name, status, linked in _files_below(folder, note):
        any_link = any_link or linked or status.st_nlink > 1
        files.append((linked, name, status))
    files.sort(key=lambda row: row[:2])  # files come before links
    rows: list[Row] = []
    inodes: set[tuple[int, int]] = set()
    for _, name, status in files:
        key = status.st_dev, status.st_ino
        if any_link and status.st_ino:  # file systems without inodes report 0
            if key in inodes:
                note("link to an image already in use", name)
                continue
            inodes.add(key)
        rows.append((name, status.st_size, status.st_mtime_ns))
    return sorted(rows)


def _files_below(folder: Path, note: Note) -> Iterator[tuple[str, os.stat_result, bool]]:
    """Yield (relative path, status, whether a link led there) of every file with an image suffix."""
    real = folder.resolve()
    visited = {_key(place) for place in (real, *real.parents)}
    own: deque[tuple[str, str, bool]] = deque([(str(folder), "", False)])
    links: deque[tuple[str, str, bool]] = deque()
    while own or links:  # links come last, so that a folder is read under its own name
        path, before, linked = (own or links).popleft()
        if linked:
            if (key := _key(path)) in visited:
                note("link to a folder already in use", before.rstrip("/"))
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
    return "dangling link" if entry.is_symlink() else "not a regular file"


def _link_fault(entry: os.DirEntry[str], error: OSError) -> str:
    """Return why a link cannot be followed; raise `error` if the entry is not a link."""
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
    """Return whether the folder is a link to a parent folder; as a class it would contain all others' images."""
    return entry.is_symlink() and Path(os.path.realpath(entry.path)) in (
        here := Path(os.path.realpath(os.path.dirname(entry.path))),
        *here.parents,
    )


def _unsupported(name: str) -> str:
    """Return a reason such as `unsupported .heic`; an unusual suffix is not repeated."""
    suffix = os.path.splitext(name)[1].lower()
    return f"unsupported {suffix}" if _SUFFIX.fullmatch(suffix) else "without a usual suffix"
