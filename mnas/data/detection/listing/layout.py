"""Tell the layout of a detection data set from its folder: COCO JSON, Pascal VOC or YOLO."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from mnas.data.detection.faults import FaultCount
from mnas.data.detection.listing.annotated import AnnotatedData
from mnas.data.detection.listing.coco import read_coco
from mnas.data.detection.listing.coco_parts import coco_parts
from mnas.data.detection.listing.voc import read_voc, voc_parts
from mnas.data.detection.listing.yolo import read_yolo, yolo_file
from mnas.labels import shown, shown_path

Layout = Literal["coco", "voc", "yolo"]
Reader = Callable[[FaultCount], AnnotatedData]
"""Function that reads all annotations, and counts their faults."""

_RULE = (
    "--data must be a folder in COCO's layout (annotations/instances_train.json and train/), Pascal VOC's "
    "(Annotations/*.xml and JPEGImages/) or YOLO's (data.yaml, images/ and labels/)"
)


def find_layout_reader(root: Path) -> tuple[Layout, Reader]:
    """Return the layout of a folder, and a function that reads it.

    Raises:
        ValueError: the folder has none of the layouts, or more than one.
        OSError: a folder cannot be read.
    """
    readers: dict[Layout, Reader] = {}
    if coco := coco_parts(root):
        readers["coco"] = lambda faults: read_coco(root, coco, faults)
    if voc := voc_parts(root):
        readers["voc"] = lambda faults: read_voc(root, voc, faults)
    if (yolo := yolo_file(root)) is not None:
        readers["yolo"] = lambda faults: read_yolo(root, yolo, faults)
    if not readers:
        raise ValueError(f"{_RULE}, but {shown_path(root)} contains {_contents(root)}")
    if len(readers) > 1:
        raise ValueError(
            f"--data must have one layout, but {shown_path(root)} has those of {' and '.join(readers)}; move the "
            "annotations of the others out of it"
        )
    return next(iter(readers.items()))


def _contents(root: Path) -> str:
    names = sorted(path.name for path in root.iterdir())
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(shown, names[:5])) + more if names else "nothing"
