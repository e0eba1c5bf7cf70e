"""Read COCO JSON: a file of annotations for each part, and the folder with its images.

Lin et al., "Microsoft COCO: Common Objects in Context" (ECCV 2014, arXiv:1405.0312); https://cocodataset.org/#format-data.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mnas.data.detection.faults import FaultCount, because
from mnas.data.detection.listing.annotated import Annotated, AnnotatedData
from mnas.data.detection.listing.names import Number, inner_path, number_of, numbers, relative_name
from mnas.labels import check_class_names, same_name, shown
from mnas.metadata import MOST_CLASSES
from mnas.readers import parse_json, read_regular

COCO_BYTES = 2 << 30
"""Largest file of annotations, in bytes; that of COCO's training images has 0.5 GB."""
MOST_ID = 2**53
"""Number of an image or category from which JSON of other tools loses digits; data with larger ones is renumbered."""
_OMITTED = frozenset({"segmentation", "keypoints", "coco_url", "flickr_url", "caption"})
_TRIED = 50  # images that are looked for in each folder that may contain them


@dataclass(frozen=True, kw_only=True)
class CocoPart:
    """A part's annotation file, and the folders that may contain its images, the likeliest first."""

    file: Path
    folders: tuple[Path, ...]


def read_coco(root: Path, parts: Mapping[str, CocoPart], faults: FaultCount) -> AnnotatedData:
    """Return the images of each part with boxes in the form xywh.

    The first file determines the classes; others may use other numbers for them.

    Raises:
        ValueError: a file is not COCO JSON, categories are missing, invalid, repeated, or not in the first file.
        OSError: a file cannot be read.
    """
    classes: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    images = {}
    for part, source in parts.items():
        where = relative_name(source.file, root)
        content = _content(source.file, where)
        categories = _categories(content["categories"], content["annotations"], where)
        if not classes:
            classes = tuple(categories.values())
            numbers = tuple(categories)
            whole = all(isinstance(number, int) and 0 <= number < MOST_ID for number in numbers)
            category_ids = tuple(map(int, numbers)) if whole else tuple(range(1, len(classes) + 1))
        labels = _labels(categories, classes, where, next(iter(parts.values())).file.name)
        images[part] = _Part(root, source, where, labels, faults).images(content)
    return AnnotatedData(classes=classes, category_ids=category_ids, form="xywh", parts=images)


def _content(path: Path, where: str) -> dict[str, Any]:
    try:
        # A box with NaN, Infinity or an integer without end is dropped by itself
        content = parse_json(read_regular(path, COCO_BYTES), COCO_BYTES, omit=_OMITTED, finite=False)
    except ValueError as error:
        raise ValueError(f"{where} must be COCO JSON, but {error}; export the annotations again") from None
    lists = ("images", "annotations", "categories")
    absent = [key for key in lists if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if absent:
        raise ValueError(f"{where} must be COCO JSON with the lists images, annotations and categories, but it lacks "
                         f"{' and '.join(absent)}")  # fmt: skip
    return dict(content)


def _categories(rows: Sequence[Any], annotations: Sequence[Any], where: str) -> dict[Number, str]:
    """Return number -> name of the categories, sorted by number, or in the order of the file if some are text."""
    named: dict[Number, str] = {}
    for row in rows:
        number = number_of(row.get("id")) if isinstance(row, dict) else None
        if number is None:
            raise ValueError(f"each category must have an id and a name, but got {shown(row)} in {where}")
        name = row.get("name")
        name = str(name) if type(name) is int else name
        if number in named and named[number] != name:
            raise ValueError(
                f"categories must have different ids, but {shown(named[number])} and {shown(name)} have id {number} in "
                f"{where}; renumber them"
            )
        named[number] = name  # checked below
    for number in _placeholder(rows, annotations):
        named.pop(number, None)
    if not 1 <= len(named) <= MOST_CLASSES:
        raise ValueError(f"{where} must have 1 to {MOST_CLASSES} categories, but got {len(named)}")
    check_class_names(list(named.values()), where)
    if all(isinstance(number, int) for number in named):
        named = {number: named[number] for number in sorted(named, key=int)}
    return named


def _placeholder(rows: Sequence[Any], annotations: Sequence[Any]) -> set[Number]:
    """Return the number of the category that Roboflow puts before the classes: their supercategory, without boxes."""
    first = next((row for row in rows if number_of(row.get("id")) == 0), None)
    others = [row for row in rows if row is not first]
    if first is None or not others or any(row.get("supercategory") != first.get("name") for row in others):
        return set()
    used = any(isinstance(row, dict) and number_of(row.get("category_id")) == 0 for row in annotations)
    return set() if used else {0}


def _labels(categories: Mapping[Number, str], classes: Sequence[str], where: str, first: str) -> dict[Number, int]:
    """Return number -> label, from 0, for the categories of a part."""
    by_name = {same_name(name): label for label, name in enumerate(classes)}
    labels = {}
    for number, name in categories.items():
        if same_name(name) not in by_name:
            raise ValueError(
                f"each part must have the categories of {first}, but {where} also has {shown(name)}; add it there, "
                "or remove it here"
            )
        labels[number] = by_name[same_name(name)]
    return labels


class _Part:
    """Collects the images and boxes of one file."""

    def __init__(
        self, root: Path, source: CocoPart, where: str, labels: Mapping[Number, int], faults: FaultCount
    ) -> None:
        self._root, self._source, self._where, self._labels, self._faults = root, source, where, labels, faults
        self._by_number: dict[Number, Annotated | None] = {}
        """Number -> image; None for a number that is ambiguous or of an unusable image."""

    def images(self, content: Mapping[str, Any]) -> list[Annotated]:
        """Return the images of the file with their boxes. Raises ValueError if it lists none."""
        self._add_images(content["images"])
        self._add_boxes(content["annotations"])
        images = {id(image): image for image in self._by_number.values() if image is not None}
        if not images:
            raise ValueError(f"{self._where} must list images, but it lists no usable one{because(self._faults)}")
        return list(images.values())

    def _add_images(self, rows: Sequence[Any]) -> None:
        named = [(row, inner_path(row.get("file_name"))) for row in rows if isinstance(row, dict)]
        self._faults.add("image entries are not objects (skipped)", self._where, len(rows) - len(named))
        folder = _folder(self._source.folders, [path for _, path in named if path is not None])
        by_path: dict[Path, Annotated] = {}
        numbers = [number_of(row.get("id")) for row, _ in named]
        whole = all(type(number) is int and 0 <= number < MOST_ID for number in numbers)
        for place, (number, (row, name)) in enumerate(zip(numbers, named, strict=True), start=1):
            if number is None or name is None:
                what = "an id" if number is None else "the name of a file inside the data"
                self._faults.add(
                    f"image entries lack {what} (skipped)", f"{self._where}: {shown(row.get('file_name'))}"
                )
                if number is not None:
                    self._by_number[number] = None
                continue
            path = _file_of(folder, name)
            if number in self._by_number:
                earlier = self._by_number[number]
                if earlier is None or earlier.path != path:
                    self._faults.add("images share the id of another image (skipped with their boxes)", str(name))
                    self._by_number[number] = None
                else:
                    self._faults.add("images are listed twice (used once)", str(name))
                continue
            if path in by_path:
                self._faults.add("images are listed twice (used once)", str(name))
            else:
                by_path[path] = Annotated(
                    path=path,
                    name=relative_name(path, self._root),
                    image_id=int(number) if whole else place,
                    size=_size(row),
                )
            self._by_number[number] = by_path[path]

    def _add_boxes(self, rows: Sequence[Any]) -> None:
        seen: dict[Number, tuple[Any, ...]] = {}
        for row in rows:
            if not isinstance(row, dict):
                self._faults.add("annotations are not objects (skipped)", self._where)
                continue
            number = number_of(row.get("id"))
            image_number = number_of(row.get("image_id"))
            label = self._labels.get(category) if (category := number_of(row.get("category_id"))) is not None else None
            example = f"{self._where}: annotation {shown(row.get('id'))}"
            if image_number is None or image_number not in self._by_number:
                self._faults.add("annotations belong to no listed image (skipped)", example)
                continue
            image = self._by_number[image_number]
            if image is None:
                continue  # the image was counted
            if label is None:
                self._faults.add("annotations have a category that is not listed (skipped)", example)
                continue
            box = self._box(row.get("bbox"), example)
            if box is None:
                continue
            if number is not None:
                content = (image.path, label, *box)
                if number in seen:
                    same = seen[number] == content
                    self._faults.add(
                        "annotations are repeated (used once)" if same else "annotations share an id (all used)",
                        example,
                    )
                    if same:
                        continue
                seen[number] = content
            crowd = row.get("iscrowd")
            area = numbers([row.get("area")])
            image.boxes.append(box)
            image.labels.append(label)
            image.crowd.append(crowd is True or number_of(crowd) == 1)
            image.areas.append(area[0] if area and area[0] > 0 else None)

    def _box(self, value: object, example: str) -> list[float] | None:
        """Return the four numbers of a box; None, with a fault, if there are others."""
        if value is None or value == []:
            self._faults.add("annotations have no box (skipped)", example)
            return None
        box = numbers(value) if isinstance(value, list) and len(value) == 4 else None
        if box is None:
            self._faults.add("boxes are not four numbers (dropped)", example)
        elif any(isinstance(number, str) for number in value):  # type: ignore[attr-defined]
            self._faults.add("boxes are text (read as numbers)", example)
        return box


def _size(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return width and height of an image entry; None if it has none, which some tools write as 0."""
    sides = numbers([row.get("width"), row.get("height")])
    return (round(sides[0]), round(sides[1])) if sides is not None and min(sides) >= 1 else None


def _folder(folders: Sequence[Path], names: Sequence[Any]) -> Path:
    """Return the folder with the most of the first images; without any, the likeliest one, for messages."""
    tried = names[:_TRIED]
    return max(folders, key=lambda folder: sum(os.path.isfile(_file_of(folder, name)) for name in tried))


def _file_of(folder: Path, name: PurePosixPath) -> Path:
    r"""Return the file of a name; a \ of Windows in it separates folders unless a file has it in its name."""
    path = folder / name
    return path if "\\" not in str(name) or os.path.isfile(path) else folder / str(name).replace("\\", "/")
