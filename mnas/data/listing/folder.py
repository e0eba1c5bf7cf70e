"""Folders of images: class folders, in parts or not."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mnas.data.decoding.dim import dim_note
from mnas.data.image import Item
from mnas.data.listing.class_table import Listing, left_out_of
from mnas.data.listing.layout import check_classes, find_layout
from mnas.data.listing.walk import Note, contents_of, images_below, note_files
from mnas.data.source import Parts, Source
from mnas.labels import alike, check_class_names, look_alike, same_name, shown, shown_path

_Row = tuple[str, int, int, int]
"""(relative path, label, bytes, time of change) of an image."""
_NAMED = 3


def folder_source(root: Path, *, val_is_test: bool = False, needs_train: bool = True) -> Source:
    """Return the class folders in `root`, or in its train/, val/ (valid/, validation/, ...) and test/.

    The rules are in docs/reference/image-folders.md.

    Args:
        val_is_test: keep val/ out of the search, because a benchmark reports its results on val/ (ImageNet).
        needs_train: reject parts without a training part; else the training part may be empty.

    Raises:
        ValueError: no such folder, no class folders, no images in one of them, fewer than two classes, a class that is
            not among those of train/, an invalid class name, or an ambiguous layout.
        OSError: a folder cannot be read.
    """
    if not root.is_dir():
        what = "a file" if root.exists() else "no such folder"
        raise ValueError(f"--data must be a folder of class folders, but got {str(root)!r} ({what})")
    layout = find_layout(root, needs_train=needs_train)
    folders = {
        "test" if part == "val" and val_is_test else part: path
        for part, path in layout.parts.items()
        if not (val_is_test and part == "test" and "val" in layout.parts)
    }
    seen = _Seen()
    classed = next(iter(folders.values()))
    classes = _classes(classed)
    seen.notes += [*layout.notes, *check_classes(classed, classes)]
    if pairs := look_alike(classes):
        seen.notes.append(f"warning: classes {' and '.join(map(ascii, pairs[0]))} are different, but look the same")
    elif pairs := alike(classes):
        seen.notes.append(
            f"classes {' and '.join(map(shown, pairs[0]))} differ only in case, so some systems confuse them"
        )
    rows = {part: _rows(path, part, classes, seen) for part, path in folders.items()}
    if note := dim_note(classed, [row[0] for row in rows[next(iter(folders))]]):
        seen.notes.append(note)
    if root not in folders.values():
        note_files(root, seen.leaver("", ""))

    def items(part: str) -> list[Item]:
        return [
            Item(name=f"{part}/{name}", label=label, content=folders[part] / name, size_bytes=size)
            for name, label, size, _ in rows[part]
        ]

    return Source(
        name=root.resolve().name,
        classes=classes,
        files=lambda: {part: [(row[0], f"{folders[part]}/{row[0]}") for row in group] for part, group in rows.items()},
        identity={part: [(name, size, time) for name, _, size, time in group] for part, group in rows.items()},
        flip=True,
        own_val="val" in rows,
        parts=lambda: Parts(
            classes=classes,
            train=items("train") if "train" in rows else [],
            val=items("val") if "val" in rows else None,
            test=items("test") if "test" in rows else None,
        ),
        listing=seen.listing,
    )


def _classes(folder: Path) -> tuple[str, ...]:
    """Return the names of the class folders of the training part, sorted as text."""
    held = contents_of(folder)
    if len(held.folders) < 2:
        got = f"only {shown(held.folders[0])}" if held.folders else "no folder"
        got += ", and images beside them" if held.folders and held.images else ", but images" if held.images else ""
        raise ValueError(
            f"--data must have at least two class folders of images, but got {got} in {shown_path(folder)}"
        )
    check_class_names(held.folders, f"the folder {shown(folder.name)}")
    return held.folders


class _Seen:
    """Findings besides the images, collected while the parts are listed one after another."""

    def __init__(self) -> None:
        self.left_out: list[tuple[str, str, str]] = []
        """(reason, class, name) of each file left out."""
        self.notes: list[str] = []
        self.empty: set[str] = set()

    def leaver(self, class_name: str, before: str) -> Note:
        """Return a function that records a reason and a name relative to `before`."""
        return lambda reason, name: self.left_out.append((reason, class_name, before + name))

    @property
    def listing(self) -> Listing:
        """Return the findings so far."""
        return Listing(left_out=left_out_of(self.left_out), notes=tuple(self.notes), empty=frozenset(self.empty))


def _rows(folder: Path, part: str, classes: Sequence[str], seen: _Seen) -> list[_Row]:
    """Return all images below the class folders of a part, in order of the classes and of their names."""
    before = f"{part}/"
    note_files(folder, seen.leaver("", before))
    rows: list[_Row] = []
    for label, name in _class_folders(folder, part, classes, seen.notes).items():
        count, earlier = len(rows), len(seen.left_out)
        note = seen.leaver(classes[label], f"{before}{name}/")
        rows += ((f"{name}/{file}", label, size, time) for file, size, time in images_below(folder / name, note))
        if len(rows) == count:
            inside = [f"{group.count} {group.reason}" for group in left_out_of(seen.left_out[earlier:])]
            instead = f" ({', '.join(inside[:_NAMED])})" if inside else ""
            raise ValueError(
                f"--data must have images (jpg, png, ...) in each class folder, but {shown_path(folder / name)} has "
                f"none{instead}"
            )
    if not rows:
        raise ValueError(f"--data must have images in class folders in each part, but {shown_path(folder)} has none")
    seen.empty |= {before + name for name, _, size, _ in rows if not size}
    return rows


def _class_folders(folder: Path, part: str, classes: Sequence[str], notes: list[str]) -> dict[int, str]:
    """Return label -> name of the class's folder in a part, which may differ from the class in Unicode form or case."""
    there = contents_of(folder).folders
    folders = {label: name for label, name in enumerate(classes) if name in set(there)}
    rest = [name for name in there if name not in set(folders.values())]
    forms: tuple[tuple[str, Callable[[str], str]], ...] = (
        ("Unicode form", same_name),
        ("case", lambda name: same_name(name).casefold()),
    )
    for what, form in forms:
        labels = {form(name): label for label, name in enumerate(classes) if label not in folders}
        for name in [name for name in rest if form(name) in labels]:
            label = labels.pop(form(name))
            folders[label] = name
            rest.remove(name)
            notes.append(
                f"the {part} folder {shown(name)} is read as class {shown(classes[label])}, which differs only in "
                f"{what}"
            )
    if rest:
        raise ValueError(
            f"--data must have the classes of train/ in every part, but {shown_path(folder)} also has "
            f"{shown(rest[0])}; rename or remove that folder, or add the class to train/"
        )
    if missing := [shown(name) for label, name in enumerate(classes) if label not in folders]:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        notes.append(f"the {part} part has no images of {', '.join(missing[:_NAMED])}{more}")
    return dict(sorted(folders.items()))
