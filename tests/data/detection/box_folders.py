"""Write small detection data sets, and unpack those of ../shared/data."""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.foreign_models import SHARED

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


def shared_boxes(name: str, folder: Path) -> Path:
    """Return the unpacked data set `bccd` or `coco-tiny`; skip the test if it is absent."""
    archive = SHARED / ("bccd-coco.tar.gz" if name == "bccd" else f"{name}.tar.gz")
    if not archive.exists():
        pytest.skip(f"the data set {name} is not in ../shared/data")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / name


def write_image(path: Path, width: int = 40, height: int = 30, seed: int = 0, orientation: int = 1) -> Path:
    """Write a JPEG of noise in large blocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(path, quality=95, exif=exif)
    return path


def entry(number: object, name: object, width: int = 40, height: int = 30) -> dict[str, Any]:
    """Return an image of COCO JSON."""
    return {"id": number, "file_name": name, "width": width, "height": height}


def box(number: object, image: object, bbox: object, category: object = 3, **fields: object) -> dict[str, Any]:
    """Return an annotation of COCO JSON."""
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0, **fields}


def coco_json(path: Path, images: Sequence[Any], boxes: Sequence[Any], categories: object = CATEGORIES) -> Path:
    """Write annotations, without the images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return path


def coco_folder(
    root: Path,
    boxes: Sequence[Any],
    *,
    images: Sequence[Any] | None = None,
    categories: object = CATEGORIES,
    part: str = "train",
) -> Path:
    """Write a part of a data set in COCO's layout, by default with images 1 to 3, called 1.jpg to 3.jpg."""
    entries = [entry(n, f"{n}.jpg") for n in (1, 2, 3)] if images is None else images
    for place, row in enumerate(entries):
        if images is None:
            write_image(root / part / row["file_name"], seed=place)
    coco_json(root / "annotations" / f"instances_{part}.json", entries, boxes, categories)
    return root


def voc_xml(
    path: Path,
    objects: Sequence[tuple[Any, ...]],
    width: int = 40,
    height: int = 30,
    filename: str = "",
    more: str = "",
) -> Path:
    """Write the XML file of an image; an object is its name, four numbers, and perhaps 1 if it is difficult."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = ("xmin", "ymin", "xmax", "ymax")
    parts = []
    for name, *box, difficult in (row if len(row) == 6 else (*row, 0) for row in objects):
        bndbox = "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, box, strict=True))
        parts.append(f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{bndbox}</bndbox></object>")
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    text = f"<annotation><filename>{filename}</filename>{size}{''.join(parts)}{more}</annotation>"
    path.write_text(text)
    return path


def voc_folder(root: Path, objects: Sequence[Sequence[tuple[Any, ...]]]) -> Path:
    """Write a data set in VOC's layout without lists: images 0.jpg, 1.jpg, ..., each with its objects."""
    for number, of_image in enumerate(objects):
        write_image(root / "JPEGImages" / f"{number}.jpg", seed=number)
        voc_xml(root / "Annotations" / f"{number}.xml", of_image, filename=f"{number}.jpg")
    return root


def yolo_folder(root: Path, labels: Sequence[str | None], *, part: str = "train", yaml: str | None = None) -> Path:
    """Write a part of a data set in YOLO's layout: images 0.jpg, 1.jpg, ..., and their labels, if any."""
    for number, text in enumerate(labels):
        write_image(root / "images" / part / f"{number}.jpg", seed=number)
        if text is not None:
            path = root / "labels" / part / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    default = "path: ../datasets/pets\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"
    (root / "data.yaml").write_text(default if yaml is None else yaml)
    return root
