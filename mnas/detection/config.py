"""The recipe of a detector's training: every field is an option, and a preset (mnas/detection/presets) sets them."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mnas.data.detection.augmentation import BoxAugmentation
from mnas.data.mirror import Mirror
from mnas.require import require_choice, require_int
from mnas.train.step_recipe import BatchNorm, StepRecipe


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(StepRecipe):
    """The recipe of a training. Raises ValueError if a field is out of range."""

    epochs: int
    """Number of training epochs."""
    batch_norm: BatchNorm = "batch"
    """Statistics that the backbone's batch norm uses in training: batch (those of each batch), recentred (the same, but
    the initial weights first get the images' statistics, with their function unchanged) or frozen (those of the initial
    weights)."""
    bn_momentum: float | Literal["arch"] = "arch"
    """Share of a new batch in the batch-norm statistics of the backbone; arch: the architecture's value."""
    augmentation: BoxAugmentation
    """Augmentation: ssd (zooming out, crops around boxes, colours, mirroring), small (the same, weaker) or none."""
    mirror: Mirror = "auto"
    """Mirror half of the training images at random: yes, no or auto. auto: mirror them, except for classes whose names
    suggest mirror images, such as left and right."""
    score_every: int = 1
    """Number of epochs between scorings on the validation images; the last epoch is always scored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int("--epochs", self.epochs, 1, 10**9)
        require_int("--score-every", self.score_every, 1, 10**9)
        require_choice("--augmentation", self.augmentation, get_args(BoxAugmentation))
        require_choice("--mirror", self.mirror, get_args(Mirror))

    @property
    def fixed_epochs(self) -> int:
        """The number of epochs."""
        return self.epochs

    def identity(self) -> dict[str, Any]:
        """Return the fields that must not change while a training is resumed."""
        fields = dataclasses.asdict(self)
        for may_change in ("accelerator", "mixed_precision", "threads", "mirror"):
            del fields[may_change]
        return fields
