"""Tell the layout of a detection data set from its folder: COCO JSON, Pascal VOC or YOLO."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mnas.data.detection.coco import CocoPart
from mnas.data.detection.names import relative_name
from mnas.labels import shown, shown_path

Layout = Literal["coco", "voc", "yolo"]

PARTS = ("train", "val", "test")
_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "minival", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_OTHER_TASKS = re.compile(r"captions|keypoints|panoptic|stuff|image_info", re.IGNORECASE)
_ROBOFLOW = "_annotations.coco.json"
_RULE = (
    "--data must be a folder in COCO's layout (annotations/instances_train.json and train/), Pascal VOC's "
    "(Annotations/*.xml and JPEGImages/) or YOLO's (data.yaml, images/ and labels/)"
)


@dataclass(frozen=True, kw_only=True)
class DetectionLayout:
    """The layout of a folder, and for COCO JSON the files of each part."""

    kind: Layout
    coco: Mapping[str, CocoPart]


def find_detection_layout(root: Path) -> DetectionLayout:
    """Return the layout of a folder.

    Raises:
        ValueError: the folder has none of the layouts, or more than one.
        OSError: a folder cannot be read.
    """
    coco = _coco_parts(root)
    kinds: list[Layout] = ["coco"] if coco else []
    if not kinds:
        raise ValueError(f"{_RULE}, but {shown_path(root)} contains {_contents(root)}")
    return DetectionLayout(kind=kinds[0], coco=coco)


def part_of(name: str) -> str:
    """Return the part that a name such as `instances_val2017` or `valid` stands for; empty for other names."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    parts = {_WORDS[word] for word in words if word in _WORDS}
    return parts.pop() if len(parts) == 1 else ""


def _coco_parts(root: Path) -> dict[str, CocoPart]:
    """Return the annotation files of COCO JSON by part, in the order train, val, test. Raises ValueError."""
    files: dict[str, list[Path]] = {}
    for path in _json_files(root):
        name = path.parent.name if path.name == _ROBOFLOW else path.stem
        files.setdefault(part_of(name) or "train", []).append(path)
    for part, paths in files.items():
        if len(paths) > 1:
            named = " and ".join(relative_name(path, root) for path in paths[:2])
            raise ValueError(f"--data must have one file of annotations for each part, but got {named} for {part}; "
                             "keep one of them")  # fmt: skip
    return {part: CocoPart(file=files[part][0], folders=_image_folders(root, part, files[part][0]))
            for part in PARTS if part in files}  # fmt: skip


def _json_files(root: Path) -> list[Path]:
    """Return the files of annotations: those of COCO in `annotations`, of Roboflow beside the images, or in `root`."""
    roboflow = sorted(path for path in root.glob(f"*/{_ROBOFLOW}") if path.is_file())
    if roboflow or (root / _ROBOFLOW).is_file():
        return roboflow or [root / _ROBOFLOW]
    for folder in (root / "annotations", root):
        files = [
            path for path in sorted(folder.glob("*.json")) if path.is_file() and not _OTHER_TASKS.search(path.name)
        ]
        instances = [path for path in files if path.name.startswith("instances")]
        if instances or [path for path in files if part_of(path.stem) or folder.name == "annotations"]:
            return instances or [path for path in files if part_of(path.stem)] or files
    return [path for path in (root / "annotations.json", root / "labels.json") if path.is_file()]


def _image_folders(root: Path, part: str, file: Path) -> tuple[Path, ...]:
    """Return the folders that may contain the images of a file, the likeliest first."""
    if file.name == _ROBOFLOW:
        return (file.parent,)
    stem = file.stem.removeprefix("instances_")
    words = [word for word, meaning in _WORDS.items() if meaning == part]
    names = [stem, *words, *(f"{word}{year}" for word in words[:1] for year in (2017, 2014)), "images", "data"]
    folders = [inner for name in names for inner in (root / name, root / "images" / name)]
    return (*folders, root)


def _contents(root: Path) -> str:
    names = sorted(path.name for path in root.iterdir())
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(shown, names[:5])) + more if names else "nothing"
