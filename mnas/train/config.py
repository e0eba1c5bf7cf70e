"""The recipe of a full training. Values come from a preset (mnas/train/presets); every field is an option."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from mnas.arch import require_choice, require_int, require_number
from mnas.data.augmentation import Augmentation, AugmentationKind
from mnas.data.mirror import Mirror
from mnas.foreign.limits import MOST_THREADS
from mnas.train.machine import Accelerator, device_of, halved_batch

if TYPE_CHECKING:
    import torch

Optimizer = Literal["rmsprop", "sgd"]
Schedule = Literal["step", "cosine"]
Precision = Literal["auto", "no", "bf16", "fp16"]
_FEWEST_FOR_STATISTICS = 16


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A recipe. Raises ValueError where a field is out of its range."""

    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images per step, of all processes together."""
    fewest_steps: int = 0
    """The batch is halved, to 16 at least, while the whole training has fewer steps: small data sets learn little in
    less."""
    optimizer: Optimizer
    """rmsprop: the paper's, with TensorFlow's semantics; sgd: with Nesterov momentum 0.9."""
    learning_rate: float
    """Peak learning rate for 256 images per step, scaled in proportion to the batch size."""
    schedule: Schedule
    """After the peak: `step` (x decay_rate every decay_epochs) or `cosine` (down to 0), counted from the first step."""
    warmup_epochs: float
    """Epochs in which the learning rate rises from 0; at most half of all."""
    decay_rate: float = 0.97
    """Factor of the learning rate in the `step` schedule."""
    decay_epochs: float = 2.4
    """Epochs between two steps of the `step` schedule."""
    ema_decay: float
    """Decay of the moving average of weights and batch-norm statistics, which the trained model gets; it starts lower,
    as in TensorFlow: min(ema_decay, (1 + steps) / (10 + steps)). 0: the model gets the last weights."""
    label_smoothing: float
    """Share of the target that is spread over all classes."""
    weight_decay: float
    """Weight decay of all weights but batch norm."""
    dropout: float | Literal["arch"] = "arch"
    """Probability before the classifier; arch: the architecture's own."""
    bn_momentum: float | Literal["arch"] = "arch"
    """Share of a new batch in the batch-norm statistics; arch: the architecture's own."""
    estimate_statistics: int
    """Number of training images (16 or more) on which batch-norm statistics are estimated before every scoring; 0: use
    the statistics of training."""
    mixup: float = 0.0
    """Alpha of mixup; 0: off."""
    cutmix: float = 0.0
    """Alpha of CutMix; 0: off. With both, each is used for half of the batches."""
    augmentation: AugmentationKind
    """`shift`: by up to a sixteenth of the side; `inception`: a crop of random area and aspect, resized. Both go
    with --mirror."""
    scale_low: float = 0.08
    """Smallest share of the area of an `inception` crop."""
    auto_augment: str = ""
    """timm's policy, as rand-m9-mstd0.5-inc1; empty for none. Not for images in arrays."""
    random_erasing: float = 0.0
    """Probability that a part of an image becomes noise."""
    mirror: Mirror = "auto"
    """Mirror half of the training images at random: yes, no, or auto (not where two classes are each other's mirror
    images by their names, as left and right, nor for digits and fashion-mnist)."""
    crop: float
    """Share of the side of an image's centre square that is scored."""
    seed: int = 0
    """Random seed."""

    accelerator: Accelerator = "auto"
    """Device to train on: cuda or cpu; auto: a GPU if there is one."""
    mixed_precision: Precision = "auto"
    """auto: on a GPU, bf16 where it has that, else fp16; on a CPU, where it is slower, no."""
    compile: bool = False
    """Compile the network (torch.compile): a minute or more at the start, then faster on a GPU."""
    threads: int | Literal["auto"] = "auto"
    """Threads of the CPU; results repeat bit for bit only with the same number. auto: torch's choice."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 2), ("fewest_steps", 0), ("estimate_statistics", 0)):
            require_int(name, getattr(self, name), low, 10**9)
        if 0 < self.estimate_statistics < _FEWEST_FOR_STATISTICS:
            raise ValueError(
                f"estimate_statistics must be 0 (off) or {_FEWEST_FOR_STATISTICS} images or more, as fewer say nothing "
                f"of means and variances, but got {self.estimate_statistics}"
            )
        for name in ("seed", "checkpoint_every"):
            require_int(name, getattr(self, name), 1 if name == "checkpoint_every" else 0, 2**63 - 1)
        for name, least, most in (
            ("learning_rate", 1e-9, 1e3),
            ("warmup_epochs", 0, 1e9),
            ("decay_rate", 1e-9, 1),
            ("decay_epochs", 1e-3, 1e9),
            ("ema_decay", 0, 0.9999999),
            ("label_smoothing", 0, 0.99),
            ("weight_decay", 0, 1),
            ("mixup", 0, 100),
            ("cutmix", 0, 100),
            ("crop", 0.1, 1),
        ):
            require_number(name, getattr(self, name), least, most)
        if self.dropout != "arch":
            require_number("dropout", self.dropout, 0, 0.99)
        if self.bn_momentum != "arch":
            require_number("bn_momentum", self.bn_momentum, 1e-9, 1)
        if self.threads != "auto":
            require_int("threads", self.threads, 1, MOST_THREADS)
        for name, kind in (
            ("optimizer", Optimizer),
            ("schedule", Schedule),
            ("accelerator", Accelerator),
            ("mixed_precision", Precision),
        ):
            require_choice(name, getattr(self, name), get_args(kind))
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ValueError(f"batch_size must be even for mixup and CutMix, but got {self.batch_size}")
        self.variation()  # runs the checks of the variation

    def variation(self) -> Augmentation:
        """Return the fields on augmentation in the form that data sets take."""
        return Augmentation(
            kind=self.augmentation,
            scale_low=self.scale_low,
            auto_augment=self.auto_augment,
            random_erasing=self.random_erasing,
            mirror=self.mirror,
        )

    def identity(self) -> dict[str, Any]:
        """Return the fields that must not change while a training is resumed."""
        fields = dataclasses.asdict(self)
        # the images decide what `mirror` comes to: `mnas.data.mirror.to_store`
        for may_change in ("accelerator", "mixed_precision", "compile", "threads", "checkpoint_every", "mirror"):
            del fields[may_change]
        return fields

    def batch_size_for(self, images: int) -> int:
        """Return the number of images per step for this many training images."""
        return halved_batch(self.batch_size, images, self.epochs, self.fewest_steps)

    def device(self) -> "torch.device":
        """Return the device. Raises ValueError where CUDA is requested but missing."""
        return device_of(self.accelerator)
