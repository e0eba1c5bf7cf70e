"""Settings of `mnas detect train`: the backbone, the images, the default boxes and the recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from mnas.detection.config import DetectionConfig
from mnas.detection.fitted import BoxRule
from mnas.detection.presets import PRESETS
from mnas.detector import INPUT_SIZE
from mnas.require import require_int
from mnas.settings import from_options, named_preset


@dataclass(frozen=True, kw_only=True)
class DetectTrainSettings:
    """A detector's training."""

    arch: str = field(kw_only=False)
    """Backbone: a name (mnasnet-a1, efficientnet-lite0, mnasnet-a1@0.5), trial (runs/NAME#17), .json file or block
    strings (see mnas show)."""
    data: str
    """Folder of images with boxes in COCO's, Pascal VOC's or YOLO's layout."""
    preset: str = "small"
    """Recipe that sets the defaults: small (hundreds to thousands of images) or coco."""
    out: Path = Path("detectors")
    """Folder for all trainings; each one writes to OUT/ARCH-SIZEpx."""
    resume: bool = False
    """Resume an interrupted training; a finished one is left as it is."""
    weights: str = ""
    """Weights that the backbone starts from: timm, torchvision, pretrained or a file of mnas train. timm and
    torchvision download them, and pretrained needs the extra mnas[pretrained]. Empty: random weights."""
    input_size: int = INPUT_SIZE
    """Input size in pixels, a multiple of 32. Images are resized to a square."""
    boxes: BoxRule = "fitted"
    """Default boxes: fitted (sizes and maps chosen to match at least 95 % of every class's training boxes) or paper
    (those of SSDLite)."""
    workers: int | Literal["auto"] = "auto"
    """Number of processes that read images; auto: one per core, at most 16, and none where the decoded images fit into
    the cache."""

    config: Annotated[DetectionConfig, Parameter(name="*")] = field(default_factory=lambda: PRESETS["small"])
    """Recipe."""

    def __post_init__(self) -> None:
        if self.workers != "auto":
            require_int("--workers", self.workers, 0, 1024)


def detect_preset_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe that these options choose, option by option. Raises ValueError for an unknown preset."""
    return dict(vars(named_preset(PRESETS, options.get("preset", DetectTrainSettings.preset))))


def detect_train_settings(options: Mapping[str, Any]) -> DetectTrainSettings:
    """Return the settings of these options by name, over the values of the preset among them.

    Raises:
        ValueError: an option or the preset is unknown, or a value is out of range.
    """
    return from_options(DetectTrainSettings, {**detect_preset_values(options), **options})
