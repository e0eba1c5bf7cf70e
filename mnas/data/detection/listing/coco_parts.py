"""Find the annotation files of COCO JSON, and the folders with their images."""

import re
from pathlib import Path

from mnas.data.detection.listing.coco import CocoPart
from mnas.data.detection.listing.names import relative_name
from mnas.data.detection.listing.parts import PARTS, WORDS, part_of

_OTHER_TASKS = re.compile(r"captions|keypoints|panoptic|stuff|image_info", re.IGNORECASE)
_ROBOFLOW = "_annotations.coco.json"


def coco_parts(root: Path) -> dict[str, CocoPart]:
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
    words = [word for word, meaning in WORDS.items() if meaning == part]
    names = [stem, *words, *(f"{word}{year}" for word in words[:1] for year in (2017, 2014)), "images", "data"]
    folders = [inner for name in names for inner in (root / name, root / "images" / name)]
    return (*folders, root)
