"""Read Pascal VOC's XML: a file of annotations for each image.

Everingham et al., "The Pascal Visual Object Classes Challenge" (IJCV 2010), whose development kit describes the files.
"""

import os
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from xml.etree.ElementTree import Element

from mnas.data.detection.faults import FaultCount, because
from mnas.data.detection.listing.annotated import Annotated, AnnotatedData
from mnas.data.detection.listing.names import numbers, relative_name
from mnas.data.detection.listing.parts import PARTS, part_of
from mnas.data.image import SUFFIXES
from mnas.labels import check_class_names, same_name, shown, shown_path
from mnas.metadata import MOST_CLASSES
from mnas.readers import XML_BYTES, parse_xml, read_regular

_ANNOTATIONS = ("annotations", "xml", "xmls")
_IMAGES = ("jpegimages", "images", "image", "imgs")
_LIST_BYTES = 64 << 20
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, kw_only=True)
class VocPart:
    """The folders of a part."""

    annotations: Path
    images: Path
    lines: tuple[str, ...] | None
    """Lines of the list of its images; None: all files."""


@dataclass(frozen=True)
class _Object:
    """A box as written, before its pixels are counted from 0."""

    name: str
    box: tuple[float, ...]
    difficult: bool


def voc_parts(root: Path) -> dict[str, VocPart]:
    """Return the parts of a folder: lists in ImageSets/Main, folders of parts, or all files as the training part.

    Returns no parts for other layouts. Raises ValueError for several years of VOC beside each other.
    """
    base = _base(root)
    if annotations := _annotations(base):
        images = next((base / name for name in _folders(base) if name.lower() in _IMAGES), annotations)
        lists = _lists(base / "ImageSets" / "Main")
        if not lists:
            return {"train": VocPart(annotations=annotations, images=images, lines=None)}
        return {part: VocPart(annotations=annotations, images=images, lines=lines) for part, lines in lists.items()}
    folders: dict[str, VocPart] = {}
    for name in _folders(base):
        annotations = _annotations(base / name)
        part = part_of(name)
        if annotations and part and part not in folders:
            images = next((base / name / i for i in _folders(base / name) if i.lower() in _IMAGES), annotations)
            folders[part] = VocPart(annotations=annotations, images=images, lines=None)
    if not folders and _has_xml(base):
        return {"train": VocPart(annotations=base, images=base, lines=None)}
    return {part: folders[part] for part in PARTS if part in folders}


def read_voc(root: Path, parts: Mapping[str, VocPart], faults: FaultCount) -> AnnotatedData:
    """Return the images of each part with boxes in the form xyxy.

    The classes are the names in all files, sorted as text. Objects marked as difficult become crowds, which VOC's
    metrics ignore like COCO's. Pixels count from 1, as in VOC, unless a box begins at 0.

    Raises:
        ValueError: no file has an object, or a name is no valid class.
        OSError: a folder or list cannot be read.
    """
    read = {part: list(_read(root, source, faults)) for part, source in parts.items()}
    every = [one for images in read.values() for _, objects in images for one in objects]
    classes = tuple(sorted({one.name for one in every}))
    if not every:
        raise ValueError(f"--data must have objects in its XML files, but {shown_path(root)} has none{because(faults)}")
    if len(classes) > MOST_CLASSES:
        raise ValueError(f"--data must have at most {MOST_CLASSES} classes, but its XML files name {len(classes)}")
    check_class_names(classes, "the XML files")
    first = 0 if any(min(one.box[:2]) < 1 for one in every) else 1
    labels = {name: label for label, name in enumerate(classes)}
    for images in read.values():
        for image, objects in images:
            for one in objects:
                x1, y1, x2, y2 = one.box
                image.boxes.append([x1 - first, y1 - first, x2, y2])
                image.labels.append(labels[one.name])
                image.crowd.append(one.difficult)
                image.areas.append(None)
    return AnnotatedData(
        classes=classes,
        category_ids=tuple(range(1, len(classes) + 1)),
        form="xyxy",
        parts={part: [image for image, _ in images] for part, images in read.items()},
    )


def _base(root: Path) -> Path:
    """Return the folder of a year of VOC, inside VOCdevkit or not; `root` for other folders."""
    for folder in (root, root / "VOCdevkit"):
        years = [name for name in _folders(folder) if name.lower().startswith("voc2") and _annotations(folder / name)]
        if len(years) > 1:
            raise ValueError(
                f"--data must be one year of VOC, but {shown_path(folder)} has {' and '.join(years)}; name one of them"
            )
        if years:
            return folder / years[0]
    return root


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _annotations(base: Path) -> Path | None:
    """Return the folder with the XML files of a part or data set: an inner one, or, if it is a part, itself."""
    for name in _folders(base):
        if name.lower() in _ANNOTATIONS and _has_xml(base / name):
            return base / name
    return base if part_of(base.name) and _has_xml(base) else None


def _has_xml(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(".xml") for entry in entries)


def _lists(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return part -> lines of the lists in ImageSets/Main, without empty lists; trainval stands for a missing train."""
    lists = {}
    for part in PARTS:
        names = (part, "trainval") if part == "train" else (part,)
        path = next((folder / f"{name}.txt" for name in names if (folder / f"{name}.txt").is_file()), None)
        if path is not None:
            text = read_regular(path, _LIST_BYTES).decode("utf-8-sig", errors="surrogateescape")
            lists[part] = tuple(line.strip() for line in text.splitlines() if line.strip())
    return {part: lines for part, lines in lists.items() if lines}


def _listed(line: str, stems: Container[str]) -> str:
    """Return the name that a line of a list stands for: `7`, `7 1` (of a class's list), `7.jpg` or `JPEGImages/7.jpg`.

    Folders are those of any system, and do not count. A name may have spaces.

    Args:
        stems: the names that exist.
    """
    for text in (line, line.split()[0]):
        name = PureWindowsPath(text).name
        stem, suffix = os.path.splitext(name)
        for candidate in (text, name, stem if suffix.lower() in (*SUFFIXES, ".xml") else name):
            if candidate in stems:
                return candidate
    return line


def _read(root: Path, source: VocPart, faults: FaultCount) -> Iterator[tuple[Annotated, list[_Object]]]:
    """Yield the images of a part, with their objects."""
    with os.scandir(source.annotations) as entries:
        files = {entry.name[:-4]: Path(entry.path) for entry in entries if entry.name.lower().endswith(".xml")}
    with os.scandir(source.images) as entries:
        names = sorted(entry.name for entry in entries if os.path.splitext(entry.name)[1].lower() in SUFFIXES)
    images = {os.path.splitext(name)[0]: name for name in reversed(names)}
    listed = sorted(files) if source.lines is None else dict.fromkeys(_listed(line, files) for line in source.lines)
    every, used = frozenset(names), set[str]()
    for number, stem in enumerate(listed, start=1):
        if stem not in files:
            faults.add("listed images have no XML file (skipped)", stem)
            continue
        where = relative_name(files[stem], root)
        try:
            element = parse_xml(read_regular(files[stem], XML_BYTES))
        except (ValueError, OSError) as error:
            faults.add("XML files are broken (skipped with their images)", f"{where}: {error}")
            continue
        name = images.get(stem) or _named(element, every, images)
        if name is None:
            faults.add("XML files have no image (skipped)", where)
            continue
        if name in used:
            faults.add("images are listed twice (used once)", where)
            continue
        used.add(name)
        path = source.images / name
        image = Annotated(path=path, name=relative_name(path, root), image_id=number, size=_size(element))
        yield image, _objects(element, where, faults)


def _named(element: Element, names: Container[str], images: Mapping[str, str]) -> str | None:
    """Return the image that an XML file names, in whatever folder of another machine; None if it is not in ours.

    Args:
        names: the images.
        images: name without suffix -> image.
    """
    path = PureWindowsPath((element.findtext("filename") or "").strip())  # reads paths of any system
    if ".." in path.parts:
        return None
    return path.name if path.name in names else images.get(path.name)


def _size(element: Element) -> tuple[int, int] | None:
    """Return width and height; None if they are missing, which some tools write as 0."""
    sides = numbers([element.findtext("size/width"), element.findtext("size/height")])
    return (round(sides[0]), round(sides[1])) if sides is not None and min(sides) >= 1 else None


def _objects(element: Element, where: str, faults: FaultCount) -> list[_Object]:
    objects: list[_Object] = []
    seen: set[_Object] = set()
    for child in element.findall("object"):
        name = same_name((child.findtext("name") or "").strip())
        box = numbers([child.findtext(f"bndbox/{side}") for side in _SIDES])
        if not name:
            faults.add("objects have no name (skipped)", where)
        elif child.find("bndbox") is None:
            faults.add("annotations have no box (skipped)", f"{where}: {shown(name)}")
        elif box is None:
            faults.add("boxes are not four numbers (dropped)", f"{where}: {shown(name)}")
        else:
            one = _Object(name, tuple(box), (child.findtext("difficult") or "").strip() == "1")
            if one in seen:
                faults.add("annotations are repeated (used once)", f"{where}: {shown(name)}")
            else:
                seen.add(one)
                objects.append(one)
    return objects
