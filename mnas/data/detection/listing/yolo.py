"""Read YOLO's layout: data.yaml with the names of the classes, and a file of labels for each image.

The rules are those of https://docs.ultralytics.com/datasets/detect: a label is a class and the centre, width and height
of a box as shares of the upright image. `labels` takes the place of the last `images` in an image's path.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from mnas.data.detection.faults import FaultCount, because
from mnas.data.detection.listing.annotated import Annotated, AnnotatedData
from mnas.data.detection.listing.names import numbers, relative_name
from mnas.data.detection.listing.parts import PARTS
from mnas.data.image import SUFFIXES
from mnas.data.listing.walk import images_below
from mnas.labels import check_class_names, shown, shown_path
from mnas.metadata import MOST_CLASSES
from mnas.readers import YAML_BYTES, parse_yaml, read_regular
from mnas.text import counted

_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_LABEL_BYTES = 16 << 20
_LIST_BYTES = 256 << 20
_MOST_CHARS = 4096
_OUTSIDE = 1e-4  # labels have six decimals
_NOT_SHARES = 0.5  # share of labels outside 0 to 1 from which they are pixels


def yolo_file(root: Path) -> Path | None:
    """Return the YAML file in a folder that names classes and a training or validation part; None if none does.

    Raises ValueError for several such files.
    """
    files = [path for path in sorted(root.iterdir()) if path.suffix.lower() in (".yaml", ".yml") and path.is_file()]
    chosen = [path for path in files if _describes_data(path)]
    if len(chosen) > 1:
        raise ValueError(
            f"--data must have one YAML file that describes it, but {shown_path(root)} has "
            f"{' and '.join(path.name for path in chosen[:2])}; remove the others"
        )
    return chosen[0] if chosen else None


def _describes_data(path: Path) -> bool:
    if path.stem in ("data", "dataset"):
        return True  # its errors are reported when it is read
    try:
        values = parse_yaml(read_regular(path, YAML_BYTES))
    except ValueError:
        return False
    return isinstance(values, dict) and "names" in values and any(key in values for key in ("train", *_KEYS["val"]))


def read_yolo(root: Path, file: Path, faults: FaultCount) -> AnnotatedData:
    """Return the images of each part with boxes in the form shares.

    Raises:
        ValueError: the YAML file is damaged or names no classes or images inside of `root`; most labels are outside 0
            to 1.
        OSError: a folder cannot be read.
    """
    values = _values(file)
    ids, classes = _classes(values.get("names"), file.name)
    labels = {number: label for label, number in enumerate(ids)}
    parts = {}
    for part in PARTS:
        entries = next((values[key] for key in _KEYS[part] if values.get(key)), None)
        if entries is None:
            continue
        images = list(_images(root, values.get("path"), entries, f"{part} of {file.name}", faults))
        if images:
            parts[part] = _Labels(root, labels, faults).read(images, part)
    if not parts:
        raise ValueError(
            f"{file.name} must name folders of images inside of --data, but it names none with images{because(faults)}"
        )
    _require_labels([image.path for images in parts.values() for image in images], root)
    return AnnotatedData(classes=classes, category_ids=tuple(range(1, len(classes) + 1)), form="shares", parts=parts)


def _require_labels(images: Sequence[Path], root: Path) -> None:
    """Raise ValueError if there are images, but none has a label file."""
    files = (_label_file(image, root) for image in images)
    if images and not any(file.is_file() for file in files):
        expected = relative_name(_label_file(images[0], root), root)
        raise ValueError(
            f"--data must have label files, but none of {counted(len(images), 'image')} has one; the labels of "
            f"{relative_name(images[0], root)} belong in {expected}"
        )


def _values(file: Path) -> Mapping[str, Any]:
    try:
        values = parse_yaml(read_regular(file, YAML_BYTES))
    except ValueError as error:
        raise ValueError(f"{file.name} must be YAML with names, train and val, but {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file.name} must be YAML with names, train and val, but got {shown(values)}")
    return values


def _classes(names: object, where: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return numbers and names of the classes, from a list or from a mapping of numbers. Raises ValueError."""
    if isinstance(names, list):
        pairs = dict(enumerate(names))
    elif isinstance(names, dict) and all(isinstance(key, str) and key.isdecimal() and len(key) < 10 for key in names):
        pairs = {int(key): name for key, name in sorted(names.items(), key=lambda item: int(item[0]))}
    else:
        raise ValueError(f"{where} must have names as a list or as number: name, but got {shown(names)}")
    if not 1 <= len(pairs) <= MOST_CLASSES:
        raise ValueError(f"{where} must have 1 to {MOST_CLASSES} names, but got {len(pairs)}")
    check_class_names(list(pairs.values()), where)
    return tuple(pairs), tuple(map(str, pairs.values()))


def inner_place(root: Path, before: object, text: object) -> Path | None:
    """Return the file or folder inside of `root` that a path from a YAML file or a list stands for.

    Data sets move: a path may begin with folders of another machine, or with `..`. The longest ending of it that exists
    counts, of two names or more, first below the data set's own `path`, which `before` is. None if none exists. A \\ of
    Windows separates folders unless a name in `root` has it.
    """
    for flavour in (PurePosixPath, PureWindowsPath):
        if place := _place_of(root, _inner_parts(before, PureWindowsPath), _inner_parts(text, flavour)):
            return place
    return None


def _place_of(root: Path, outer: Sequence[str], parts: Sequence[str]) -> Path | None:
    """Return the longest ending of `parts` that exists in `root`, below an ending of `outer` or not."""
    shortest = 1 if len(parts) == 1 or (parts and parts[-2] == root.resolve().name) else 2
    outer = outer[-8:]
    try:
        for start in range(len(parts) - shortest + 1):
            for cut in range(len(outer) + 1):
                place = root.joinpath(*outer[cut:], *parts[start:])
                if place.exists():
                    return place
    except (OSError, ValueError):  # too long a name, or one that is not text
        return None
    return None


def _inner_parts(text: object, flavour: type[PurePath]) -> tuple[str, ...]:
    """Return the names in a path; none for other values, URLs, or a path that is too long."""
    if not isinstance(text, str) or "://" in text or "\0" in text or len(text) > _MOST_CHARS:
        return ()
    path = flavour(text.strip())
    return tuple(part for part in path.parts if part not in (path.anchor, "..", "."))


def _images(root: Path, before: object, entries: object, where: str, faults: FaultCount) -> Iterator[Path]:
    """Yield the images of a part: those below folders, in lists of files, or files themselves."""
    for entry in entries if isinstance(entries, list) else [entries]:
        place = inner_place(root, before, entry)
        if place is None:
            faults.add("folders of images are not inside of --data (skipped)", f"{where}: {shown(entry)}")
        elif place.is_dir():
            yield from (place / name for name, _, _ in images_below(place, lambda *_: None))
        elif place.suffix.lower() == ".txt":
            for line in _lines(place, _LIST_BYTES) or ():
                image = inner_place(root, before, line) if line.strip() else None
                if image is not None and image.is_file():
                    yield image
                elif line.strip():
                    faults.add("listed images do not exist (skipped)", f"{place.name}: {line.strip()}")
        elif place.suffix.lower() in SUFFIXES:
            yield place


def _lines(path: Path, limit: int) -> list[str] | None:
    """Return the lines of a text file; None if it is not text, or too long."""
    try:
        return read_regular(path, limit).decode("utf-8-sig").splitlines()
    except ValueError:
        return None


class _Labels:
    """Reads the labels of one part."""

    def __init__(self, root: Path, labels: Mapping[int, int], faults: FaultCount) -> None:
        self._root, self._labels, self._faults = root, labels, faults
        self._count = self._outside = 0

    def read(self, paths: Sequence[Path], part: str) -> list[Annotated]:
        """Return the images with their boxes. Raises ValueError if most labels are outside 0 to 1."""
        images = []
        used: dict[Path, set[str]] = {}
        for number, path in enumerate(dict.fromkeys(paths), start=1):
            image = Annotated(path=path, name=relative_name(path, self._root), image_id=number, size=None)
            file = _label_file(path, self._root)
            where = relative_name(file, self._root)
            used.setdefault(file.parent, set()).add(file.name)
            if not file.is_file():
                self._faults.add(
                    "images have no label file (used as images without objects)", f"{image.name} (expected: {where})"
                )
            elif (lines := _lines(file, _LABEL_BYTES)) is None:
                self._faults.add(
                    "label files are not text (skipped with their images)", relative_name(file, self._root)
                )
                continue
            else:
                self._add(image, lines, where)
            images.append(image)
        if self._outside > _NOT_SHARES * self._count:
            raise ValueError(
                f"labels must be shares of the image from 0 to 1, but {self._outside} of {self._count} in the {part} "
                "part are outside; divide x and widths by the image's width, y and heights by its height"
            )
        self._count_orphans(used)
        return images

    def _add(self, image: Annotated, lines: Sequence[str], where: str) -> None:
        seen = set()
        for place, line in enumerate(lines, start=1):
            words = line.split()
            if not words:
                continue
            example = f"{where}: line {place}"
            values = numbers(words)
            if values is None or not _is_label(values):
                self._faults.add("labels are not a class and four numbers (skipped)", example)
                continue
            self._count += 1
            if min(values[1:]) < -_OUTSIDE or max(values[1:]) > 1 + _OUTSIDE:
                self._outside += 1
                self._faults.add("labels are outside 0 to 1 (skipped)", example)
            elif int(values[0]) not in self._labels:
                self._faults.add("labels have a class id beyond the names (skipped)", example)
            elif (key := tuple(values)) in seen:
                self._faults.add("annotations are repeated (used once)", example)
            else:
                seen.add(key)
                image.boxes.append(_corners(values[1:]))
                image.labels.append(self._labels[int(values[0])])
                image.crowd.append(False)
                image.areas.append(None)

    def _count_orphans(self, used: Mapping[Path, set[str]]) -> None:
        """Count label files without an image."""
        for folder, names in used.items():
            if folder.name != "labels" and "labels" not in folder.parts:
                continue  # labels beside images, where other text files may lie
            if folder.is_dir():
                with os.scandir(folder) as entries:
                    orphans = sorted(entry.name for entry in entries if entry.name.endswith(".txt"))
                orphans = [name for name in orphans if name not in names and name != "classes.txt"]
                if orphans:
                    example = relative_name(folder / orphans[0], self._root)
                    self._faults.add("label files have no image (skipped)", example, len(orphans))


def _label_file(path: Path, root: Path) -> Path:
    """Return the file with the labels of an image."""
    parts = list(path.relative_to(root).parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return root.joinpath(*parts).with_suffix(".txt")


def _is_label(values: Sequence[float]) -> bool:
    """Return whether the numbers are a class and a box, or a class and a polygon of three points or more."""
    return values[0].is_integer() and (len(values) == 5 or (len(values) >= 7 and len(values) % 2 == 1))


def _corners(values: Sequence[float]) -> list[float]:
    """Return two corners of a centre and a size, or those around a polygon."""
    if len(values) == 4:
        x, y, width, height = values
        return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    return [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
