"""Recipes by name; each file states source, expected result, cost and command."""

from mnas.detection.config import DetectionConfig
from mnas.detection.presets.coco import COCO
from mnas.detection.presets.small import SMALL

PRESETS: dict[str, DetectionConfig] = {"small": SMALL, "coco": COCO}
