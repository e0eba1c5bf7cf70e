"""Recipes by name; each file states source, expected result, cost and command."""

from mnas.train.config import TrainConfig
from mnas.train.presets.finetune import FINETUNE
from mnas.train.presets.imagenet import IMAGENET
from mnas.train.presets.small import SMALL

PRESETS: dict[str, TrainConfig] = {"small": SMALL, "imagenet": IMAGENET, "finetune": FINETUNE}


def named_preset(name: str) -> TrainConfig:
    """Return the values of a preset. Raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"--preset must be one of {', '.join(PRESETS)}, but got {name!r}")
    return PRESETS[name]
