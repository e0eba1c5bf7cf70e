"""The metrics of one epoch of a detector's training."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DetectionMetrics:
    """The metrics of one epoch, numbered from 1."""

    epoch: int
    steps: int
    """Number of steps since the start of the training."""
    learning_rate: float
    """Learning rate of the epoch's last step."""
    train_loss: float
    """Mean of the loss of SSD (classes plus boxes, for each matched default box) over the epoch's steps."""
    val_precision: float
    """COCO's mAP on the validation images of the network that would be kept at this point; NaN if not scored."""
    val_ap50: float
    """Average precision at IoU .5; NaN if not scored."""
    images_per_s: float
    """Training speed in images per second, without scoring."""
    waiting: float
    """Share of the training time spent waiting for the next batch."""
    train_s: float
    """Time of training, in seconds."""
    score_s: float
    """Time of scoring, in seconds."""

    @property
    def scores(self) -> str:
        """Scores on the validation images, in words."""
        if math.isnan(self.val_precision):
            return "not scored"
        return f"val mAP {self.val_precision:.1%}  AP50 {self.val_ap50:.1%}"
