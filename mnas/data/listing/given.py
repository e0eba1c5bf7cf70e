"""Resolve --data: a built-in name, or the path of a folder; anything else is refused with a hint."""

import re
from collections.abc import Collection
from pathlib import Path

from mnas.data.image import SUFFIXES
from mnas.data.listing.walk import contents_of
from mnas.labels import shown

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar", ".gz")
_FOLDERS_SEEN = 50  # of a folder that has a data set's name, to tell whether it is one too


def data_folder(data: str, names: Collection[str]) -> Path:
    """Return the folder that `data` is the path of.

    Args:
        names: of the built-in data sets, for the message.

    Raises:
        ValueError: there is no such folder.
    """
    rule = f"data must be a folder or one of {', '.join(names)}, but got {shown(data)}"
    if not data.strip():
        raise ValueError(f"{rule} (nothing); name one after --data")
    if "\0" in data:
        raise ValueError(f"{rule} (no path holds that character)")
    try:
        path = Path(data).expanduser()
        is_folder = path.is_dir()
    except RuntimeError:
        raise ValueError(f"{rule} (no such user)") from None
    except OSError as error:  # too long, or behind a folder that is closed
        raise ValueError(f"{rule} ({error.strerror or error})") from None
    if is_folder:
        if path.resolve() in (Path("/"), Path.home().resolve()):
            raise ValueError(f"{rule} (that is where all files are); name the folder of the images")
        return path
    if path.exists():
        raise ValueError(f"data must be a folder of class folders, but got {shown(data)} ({_file(path)})")
    if similar := [name for name in names if _letters(name) == _letters(data)]:
        raise ValueError(f"{rule} (no such folder); did you mean {similar[0]}?")
    if re.search(r"[*?\[]", data):
        raise ValueError(f"{rule} (no such folder: patterns are not expanded); name the folder of the class folders")
    raise ValueError(f"{rule} (no such folder)")


def check_not_ambiguous(name: str, data_dir: Path) -> str:
    """Return a note where a folder has a built-in data set's name; empty where none has.

    Args:
        data_dir: where the built-in data set lies.

    Raises:
        ValueError: the folder holds images in class folders, so that either may be meant.
    """
    path = Path(name)
    if not path.is_dir() or path.resolve() == data_dir.resolve():
        return ""
    if _holds_images(path):
        raise ValueError(
            f"data must be one data set, but {name!r} is built in, and there is a folder of that name with images in "
            f"{str(path.resolve().parent)!r}; give --data ./{name} for the folder, or rename it"
        )
    return f"{name!r} is the built-in data set, not the folder ./{name}, which holds no images in class folders"


def _holds_images(path: Path) -> bool:
    """Whether there are images in folders, or in folders of folders."""
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
        return "a file: an archive; unpack it, and name the folder"
    if path.suffix.lower() in SUFFIXES:
        return "a file: an image; name the folder that holds a folder of images for each class"
    return "a file" if path.is_file() else "no folder"


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
