"""Recipes by name; each file states source, expected result, cost and command."""

from mnas.detection.config import DetectionConfig
from mnas.detection.presets.coco import COCO
from mnas.detection.presets.small import SMALL

PRESETS: dict[str, DetectionConfig] = {"small": SMALL, "coco": COCO}


def named_preset(name: str) -> DetectionConfig:
    """Return the values of a preset. Raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"--preset must be one of {', '.join(PRESETS)}, but got {name!r}")
    return PRESETS[name]
