"""Folders of images: class folders, in parts or not."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mnas.data.image import SUFFIXES, Item
from mnas.data.source import Parts, Source

_VAL_NAMES = ("val", "valid", "validation")


def folder_source(root: Path, *, val_is_test: bool = False) -> Source:
    """Class folders in `root`, or in its train/, val/ (valid/, validation/) and test/.

    Args:
        val_is_test: keep val/ out of the search, as its labels are what a benchmark reports on (ImageNet).

    Raises:
        ValueError: no such folder, no class folders, no images in one of them, fewer than two classes, or a class
            that is not among those of train/.
    """
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing there"
        raise ValueError(f"data must be a folder of class folders, but got {str(root)!r} ({what})")
    folders = {name: root / name for name in ("train", *_VAL_NAMES, "test")}
    # a folder `train` that holds images is a class (of vehicles, say), one that holds folders is a part
    if folders["train"].is_dir() and _subfolders(folders["train"]):
        given = [name for name in _VAL_NAMES if folders[name].is_dir()]
        if len(given) > 1:
            raise ValueError(f"data must have one validation folder, but got {' and '.join(given)} in {str(root)!r}")
        parts = {"train": folders["train"]}
        parts |= {"test" if val_is_test else "val": folders[name] for name in given}
        parts |= {"test": folders["test"]} if folders["test"].is_dir() else {}
    else:
        parts = {"train": root}
    classes = tuple(path.name for path in _subfolders(parts["train"]))
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "no folder"
        raise ValueError(f"data must have at least two class folders of images, but got {found} in {parts['train']}")
    files = {part: _scan(path, classes) for part, path in parts.items()}

    def items(part: str) -> list[Item]:
        found = files[part]
        return [
            Item(name=f"{part}/{name}", label=label, content=parts[part] / name, size_bytes=size)
            for name, label, size, _ in found
        ]

    return Source(
        name=root.resolve().name,
        identity={part: [(name, size, time) for name, _, size, time in found] for part, found in files.items()},
        classes=classes,
        files=lambda: {part: [(row[0], f"{parts[part]}/{row[0]}") for row in rows] for part, rows in files.items()},
        flip=True,
        parts=lambda: Parts(
            classes=classes,
            train=items("train"),
            val=items("val") if "val" in files else None,
            test=items("test") if "test" in files else None,
        ),
    )


def _subfolders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _scan(path: Path, classes: Sequence[str]) -> list[tuple[str, int, int, int]]:
    """(relative path, label, bytes, time of change) of all images below the class folders, in order of their names."""
    unknown = sorted({folder.name for folder in _subfolders(path)} - set(classes))
    if unknown:
        raise ValueError(f"every part of the data must have the classes of train/, but got {unknown[0]!r} in {path}")
    found: list[tuple[str, int, int, int]] = []
    for label, name in enumerate(classes):
        count = len(found)
        if (path / name).is_dir():
            found += ((f"{name}/{file}", label, size, time) for file, size, time in sorted(_images(str(path / name))))
            if len(found) == count:
                raise ValueError(f"a class folder must have images (jpg, png, ...), but got none in {path / name}")
    if not found:
        raise ValueError(f"a part of the data must have images in class folders, but got none in {path}")
    return found


def _images(folder: str) -> Iterator[tuple[str, int, int]]:
    """(relative path, bytes, time of change) of all images below `folder`; plain strings, as there may be a million."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from ((f"{entry.name}/{name}", size, time) for name, size, time in _images(entry.path))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                stat = entry.stat()
                yield entry.name, stat.st_size, stat.st_mtime_ns
