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
