"""Recipes by name; each file states source, expected result, cost and command."""

from mnas.train.config import TrainConfig
from mnas.train.presets.finetune import FINETUNE
from mnas.train.presets.imagenet import IMAGENET
from mnas.train.presets.small import SMALL

PRESETS: dict[str, TrainConfig] = {"small": SMALL, "imagenet": IMAGENET, "finetune": FINETUNE}
