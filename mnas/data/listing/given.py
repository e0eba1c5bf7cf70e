"""Resolve --data: a built-in name, or the path of a folder; anything else is rejected with a hint."""

import re
from collections.abc import Collection
from pathlib import Path

from mnas.data.image import SUFFIXES
from mnas.data.listing.walk import contents_of
from mnas.labels import shown

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar", ".gz")
_FOLDERS_SEEN = 50  # inner folders in which to look for images


def data_folder(data: str, names: Collection[str]) -> Path:
    """Return the folder that `data` is the path of.

    Args:
        names: names of the built-in data sets, for the message.

    Raises:
        ValueError: there is no such folder.
    """
    rule = f"--data must be a folder or one of {', '.join(names)}, but got {shown(data)}"
    if not data.strip():
        raise ValueError(f"{rule} (empty); pass a name or a folder to --data")
    if "\0" in data:
        raise ValueError(f"{rule} (a path cannot contain NUL)")
    try:
        path = Path(data).expanduser()
        is_folder = path.is_dir()
    except RuntimeError:
        raise ValueError(f"{rule} (no such user)") from None
    except OSError as error:  # too long, or inside an inaccessible folder
        raise ValueError(f"{rule} ({error.strerror or error})") from None
    if is_folder:
        if path.resolve() in (Path("/"), Path.home().resolve()):
            raise ValueError(f"{rule} (the root or home folder); name the folder of the images")
        return path
    if path.exists():
        raise ValueError(f"--data must be a folder of class folders, but got {shown(data)} ({_file(path)})")
    if similar := [name for name in names if _letters(name) == _letters(data)]:
        raise ValueError(f"{rule} (no such folder); did you mean {similar[0]}?")
    if re.search(r"[*?\[]", data):
        raise ValueError(
            f"{rule} (no such folder, and patterns are not expanded); name the folder that contains the class folders"
        )
    raise ValueError(f"{rule} (no such folder)")


def check_not_ambiguous(name: str, data_dir: Path) -> str:
    """Return a note if a folder has a built-in data set's name; else an empty string.

    Args:
        data_dir: folder of the built-in data set.

    Raises:
        ValueError: the folder contains images in class folders, so that the name is ambiguous.
    """
    path = Path(name)
    if not path.is_dir() or path.resolve() == data_dir.resolve():
        return ""
    if _holds_images(path):
        raise ValueError(
            f"--data {name} is ambiguous: it is a built-in data set, and also a folder of images in "
            f"{str(path.resolve().parent)!r}. Use --data ./{name} for the folder, or rename it."
        )
    return f"{name!r} is the built-in data set, not the folder ./{name}, which contains no class folders with images"


def _holds_images(path: Path) -> bool:
    """Return whether there are images in folders, or in folders of folders."""
    for name in contents_of(path).folders[:_FOLDERS_SEEN]:
        held = contents_of(path / name, until_image=True)
        if held.images:
            return True
        inner = (contents_of(path / name / folder, until_image=True) for folder in held.folders[:_FOLDERS_SEEN])
        if any(contents.images for contents in inner):
            return True
    return False


def _file(path: Path) -> str:
    if path.name.lower().endswith(_ARCHIVES):
        return "an archive; unpack it and name its folder"
    if path.suffix.lower() in SUFFIXES:
        return "an image; name the folder that contains a folder of images for each class"
    return "a file" if path.is_file() else "not a folder"


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
