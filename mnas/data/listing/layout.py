"""Find out which folders are parts of a data set and which are classes; an ambiguous layout is rejected."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mnas.data.listing.walk import contents_of
from mnas.labels import same_name, shown

_PARTS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_FILLERS = frozenset({"set", "data", "dataset", "images", "image", "imgs", "img", "split", "folder", "part"})
_IMAGES = frozenset({"images", "image", "imgs", "img", "jpegimages", "jpgimages", "rgb"})
_MARKINGS = frozenset({
    "labels", "label", "annotations", "annotation", "masks", "mask", "bboxes", "xmls", "imagesets", "gt",
    "groundtruth", "ground_truth", "segmentation", "segmentations", "segmentationclass", "segmentationobject",
})  # fmt: skip
_MOST_WRAPPINGS = 4
_NAMED = 3
_COMPARED = 50  # class folders with which every other one is compared, as there may be thousands


@dataclass(frozen=True, kw_only=True)
class FolderLayout:
    """The folders that contain class folders."""

    parts: Mapping[str, Path]
    """Part (train, and val and test if they exist) -> folder; the folders of the first part are the classes."""
    notes: tuple[str, ...]
    """Guesses, each a sentence."""


def find_layout(root: Path, *, needs_train: bool = True) -> FolderLayout:
    """Find the parts in `root`; without parts, `root` itself is the training part.

    A folder that is named like a part, in any case, is a part if it contains folders, and a class if it contains only
    images (`train`, of vehicles). An outer folder that contains nothing but another folder is skipped.

    Args:
        needs_train: reject parts without a training part, which only scoring can do without.

    Raises:
        ValueError: the layout is ambiguous.
        OSError: a folder cannot be read.
    """
    base, notes = _unwrapped(root)
    folders = contents_of(base).folders
    _refuse_markings(base, folders)
    kinds = {name: kind for name in folders if (kind := _part_of(name))}
    holding = {name: kind for name, kind in kinds.items() if contents_of(base / name).folders}
    if not holding and not kinds:
        kinds = holding = _by_affix(base, folders)
        if kinds:
            notes = [*notes, f"folders read as parts because of their names: {_listed(kinds)}"]
    if not holding:
        _refuse_flat_parts(base, folders, kinds)
        return FolderLayout(parts={"train": base}, notes=tuple(notes))
    if needs_train and "train" not in holding.values():
        raise ValueError(
            f"--data must have a part train/ beside its other parts, but {str(base)!r} contains {_listed(folders)}; "
            "rename the folder of training images to train, or point --data at the folder of the class folders"
        )
    parts, guesses = _chosen(base, kinds, holding)
    others = [name for name in folders if name not in kinds]
    _refuse_classes_beside(base, parts, others)
    notes += guesses
    if others:
        notes.append(f"folders not used, because they are beside the parts: {_listed(others)}")
    first = next(iter(parts))
    unwrapped, guesses = _unwrapped(parts[first], in_part=True)
    classes = frozenset(map(same_name, contents_of(unwrapped).folders))
    notes += guesses
    rest = {part: _unwrapped(path, classes, in_part=True)[0] for part, path in parts.items() if part != first}
    return FolderLayout(parts={first: unwrapped, **rest}, notes=tuple(notes))


def check_classes(folder: Path, classes: Sequence[str]) -> list[str]:
    """Return the guesses about the class folders of the training part.

    Raises:
        ValueError: the folders may also be parts, or images and their annotations.
        OSError: a folder cannot be read.
    """
    _refuse_markings(folder, classes)
    _refuse_parts_of_classes(folder, classes)
    inner: dict[str, set[str]] = {}
    for name in classes:
        held = contents_of(folder / name, until_image=True)
        if not held.images and held.folders:
            inner[name] = _alike(held.folders)
            _refuse_parts_inside(folder, name, held.folders)
    for name, folders in inner.items():
        _refuse_shared(shown(name), folders, repr(str(folder)), _alike(other for other in classes if other != name))
        for other in itertools.islice(inner, _COMPARED):
            if other != name:
                _refuse_shared(shown(name), folders, shown(other), inner[other])
    several = [name for name, folders in inner.items() if len(folders) > 1]
    if several and len(inner) == len(classes):
        inside = f"the class folders contain folders of images (see {shown(several[0])})"
        return [f"{inside}; the outer folders are the classes"]
    return [f"all folders inside {shown(name)} count as that class: {_listed(sorted(inner[name]))}" for name in several]


def _refuse_parts_of_classes(folder: Path, classes: Sequence[str]) -> None:
    """Raise ValueError if each folder is named like a part of a class (train_cat, test_cat)."""
    groups: dict[str, dict[str, str]] = {}
    for name in classes:
        words = re.split(r"[^a-z0-9]+", name.casefold())
        kinds = [_PARTS[word] for word in words if word in _PARTS]
        rest = " ".join(word for word in words if word and word not in _PARTS)
        if len(kinds) != 1 or not rest:
            return
        groups.setdefault(rest, {}).setdefault(kinds[0], name)
    if parted := [list(names.values()) for names in groups.values() if len(names) > 1]:
        raise ValueError(
            f"--data must have one folder for each class, but got {_listed(parted[0])} in {str(folder)!r}, which "
            "may be parts of one class; move the classes into the folders train, val and test (train/cat)"
        )


def _refuse_parts_inside(folder: Path, name: str, inner: Sequence[str]) -> None:
    """Raise ValueError if a class folder is a data set in parts, with other folders beside it."""
    if len({kind for other in inner if (kind := _part_of(other))}) > 1:
        raise ValueError(
            f"--data must have one folder for each class, but got {shown(name)} in {str(folder)!r}, which contains "
            f"the parts {_listed(inner)}; point --data at that folder, or move the classes into parts (train/cat)"
        )


def _refuse_shared(name: str, folders: set[str], other: str, theirs: set[str]) -> None:
    """Raise ValueError if two folders contain folders of the same names, which may be the classes."""
    if len(shared := folders & theirs) > 1:
        raise ValueError(
            f"--data must have one folder for each class, but {name} and {other} both contain folders named "
            f"{_listed(sorted(shared))}, which may be the classes. Name the parts train, val and test, or put the "
            "images directly into the folder of their class."
        )


def _alike(names: Iterable[str]) -> set[str]:
    return {same_name(name).casefold() for name in names}


def _unwrapped(folder: Path, classes: frozenset[str] = frozenset(), *, in_part: bool = False) -> tuple[Path, list[str]]:
    """Return the first folder, from outside in, that contains more than one folder of folders; and a note about it.

    Args:
        classes: names of class folders, which are never skipped.
        in_part: whether the folder is a part, so that a folder named like a part inside it (train/train) is skipped.
    """
    start = folder
    for _ in range(_MOST_WRAPPINGS):
        held = contents_of(folder, until_image=True)
        if held.images:
            break
        inner = _images_beside_markings(folder, held.folders)
        if inner is None and len(held.folders) == 1 and (in_part or not _part_of(held.folders[0])):
            inner = held.folders[0]
        if inner is None or same_name(inner) in classes:
            break
        within = contents_of(folder / inner, until_image=True)
        if within.images or not within.folders:
            break
        folder = folder / inner
    note = f"the data is read from the folder {shown(str(folder.relative_to(start)))} in {shown(start.name)}"
    return folder, [note] if folder != start else []


def _images_beside_markings(folder: Path, names: Sequence[str]) -> str | None:
    """Return the folder of images if all others contain annotations and no images; else None."""
    images = [name for name in names if name.casefold() in _IMAGES]
    markings = [name for name in names if name.casefold() in _MARKINGS]
    if len(images) != 1 or not markings or len(names) > 1 + len(markings):
        return None
    for name in markings:
        held = contents_of(folder / name, until_image=True)
        if held.images or any(contents_of(folder / name / i, until_image=True).images for i in held.folders):
            return None
    return images[0]


def _refuse_markings(folder: Path, names: Sequence[str]) -> None:
    words = [name.casefold() for name in names]
    if any(word in _IMAGES for word in words) and any(word in _MARKINGS for word in words):
        raise ValueError(
            f"--data must have one folder for each class, but got {_listed(names)} in {str(folder)!r}, as in data "
            "for detection or segmentation; sort the images into a folder for each class"
        )


def _part_of(name: str) -> str | None:
    """Return train, val or test if the name means only that (`Training`, `test_set`); else None."""
    words = [word for word in re.split(r"[^a-z]+", name.casefold()) if word and word not in _FILLERS]
    if len(words) != 1 or re.search(r"\d", name):
        return None
    return _PARTS.get(words[0]) or _PARTS.get(re.sub(r"(set|data|images?)$", "", words[0]))


def _by_affix(base: Path, folders: Sequence[str]) -> dict[str, str]:
    """Return parts whose names share another word (seg_train, seg_test) and that contain folders and no images."""
    candidates: dict[str, dict[str, str]] = {}
    for name in folders:
        words = re.split(r"[^a-z0-9]+", name.casefold())
        kinds = [_PARTS[word] for word in words if word in _PARTS]
        if len(kinds) == 1:
            held = contents_of(base / name, until_image=True)
            if held.folders and not held.images:
                rest = " ".join(word for word in words if word not in _PARTS)
                candidates.setdefault(rest, {})[name] = kinds[0]
    groups = [group for group in candidates.values() if len(group) > 1 and "train" in group.values()]
    return groups[0] if len(groups) == 1 else {}


def _chosen(base: Path, kinds: Mapping[str, str], holding: Mapping[str, str]) -> tuple[dict[str, Path], list[str]]:
    """Return the folder of each part, and the guesses."""
    by_part: dict[str, list[str]] = {}
    notes = []
    for name, kind in kinds.items():
        flat = name not in holding and contents_of(base / name, until_image=True).images
        if flat and kind == "test":  # test images of a competition, whose labels are secret
            notes.append(f"folder not used, because its images are not in class folders: {shown(name)}")
        else:
            by_part.setdefault(kind, []).append(name)
    judged = [name for name in by_part.get("val", []) if _words(name) & {"eval", "evaluation"}]
    if len(by_part.get("val", [])) == 2 and len(judged) == 1 and "test" not in by_part:
        by_part["val"].remove(judged[0])
        by_part["test"] = judged
        notes.append(f"{shown(judged[0])} is read as the test part, {shown(by_part['val'][0])} as the validation part")
    words = {"train": "training", "val": "validation", "test": "test"}
    for part, names in by_part.items():
        if len(names) > 1:
            raise ValueError(
                f"--data must have one {words[part]} folder, but got {' and '.join(map(shown, names))} in "
                f"{str(base)!r}; merge or rename them"
            )
    parts: dict[str, Path] = {part: base / by_part[part][0] for part in words if part in by_part}
    unusual = {path.name: part for part, path in parts.items() if path.name not in (part, "valid", "validation")}
    if unusual:
        notes.insert(
            0, "folders read as parts: " + ", ".join(f"{shown(name)} ({part})" for name, part in unusual.items())
        )
    return parts, notes


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.casefold()))


def _refuse_classes_beside(base: Path, parts: Mapping[str, Path], others: Sequence[str]) -> None:
    """Raise ValueError if `train` may be a class among other classes."""
    first = next(iter(parts.values()))
    classes = _alike(contents_of(first).folders)
    same = [name for name in others if same_name(name).casefold() in classes]
    alone = len(parts) == 1 and any(contents_of(base / name, until_image=True).images for name in others)
    if same or alone:
        raise ValueError(
            f"--data must be either class folders or parts with class folders, but {str(base)!r} contains both: "
            f"{_listed([first.name, *(same or others)])}. Move the parts into a separate folder, or put the images of "
            "each class directly into its folder."
        )


def _refuse_flat_parts(base: Path, folders: Sequence[str], kinds: Mapping[str, str]) -> None:
    """Raise ValueError if all folders are named like parts but contain images instead of class folders."""
    if len(set(kinds.values())) > 1 and len(kinds) == len(folders):
        raise ValueError(
            f"each part of --data must contain a folder for each class, but {_listed(folders)} in {str(base)!r} "
            "contain images directly; sort the images into class folders, such as train/cat/1.jpg"
        )


def _listed(names: Sequence[str] | Mapping[str, str]) -> str:
    some = list(names)
    more = f" and {len(some) - _NAMED} more" if len(some) > _NAMED else ""
    return ", ".join(map(shown, some[:_NAMED])) + more
