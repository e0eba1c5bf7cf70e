"""The recipe of a full training: every field is an option, and a preset (mnas/train/presets) provides the values."""

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from mnas.data.augmentation import Augmentation, AugmentationKind
from mnas.data.mirror import Mirror
from mnas.foreign.limits import MOST_THREADS
from mnas.require import require_choice, require_int, require_number
from mnas.train.machine import Accelerator, device_of, halved_batch

if TYPE_CHECKING:
    import torch

Optimizer = Literal["rmsprop", "sgd", "adamw"]
Schedule = Literal["step", "cosine"]
Precision = Literal["auto", "no", "bf16", "fp16"]
Balance = Literal["none", "sampling", "loss"]
BatchNorm = Literal["batch", "recentred", "frozen"]
_FEWEST_FOR_STATISTICS = 16
_AUTO_EPOCHS, _AUTO_STEPS, _MOST_AUTO_EPOCHS = 12, 180, 30
_COUNTS = ("fewest_steps", "estimate_statistics", "patience")
_BEFORE: dict[str, object] = {"batch_norm": "batch", "balance": "none", "patience": 0, "retries": 0}
"""Fields that later versions added, with the behaviour of a training without them, which therefore still resumes."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The recipe of a training. Raises ValueError if a field is out of range."""

    epochs: int | Literal["auto"]
    """Number of training epochs; auto: 12, or as many as 180 steps need, up to 30, as few images need more epochs."""
    batch_size: int
    """Number of images per step; under torchrun, the total of all processes."""
    fewest_steps: int = 0
    """Minimum number of steps of a training: mnas halves the batch size, down to 16, to reach it. Small data sets need
    many steps to learn."""
    patience: int = 0
    """Number of epochs without a higher validation accuracy after which a training ends, with the weights of its best
    epoch; 0: train all epochs, and use the last weights."""
    retries: int = 0
    """Number of times that a training may go back to its best epoch and continue at a quarter of the learning rate,
    after its loss was not finite or its validation accuracy collapsed; 0: such a training ends with an error."""
    optimizer: Optimizer
    """Optimizer: rmsprop (the paper's, with TensorFlow's semantics), sgd (with Nesterov momentum 0.9) or adamw."""
    learning_rate: float
    """Peak learning rate for 256 images per step; scaled in proportion to the batch size."""
    schedule: Schedule
    """Schedule of the learning rate: step (multiplied by --decay-rate every --decay-epochs) or cosine (down to 0). Both
    start at the first step, not after the warm-up."""
    warmup_epochs: float
    """Number of epochs in which the learning rate rises from 0; limited to half of all epochs."""
    decay_rate: float = 0.97
    """Factor by which the step schedule multiplies the learning rate."""
    decay_epochs: float = 2.4
    """Number of epochs between two decays of the step schedule."""
    ema_decay: float
    """Decay of the moving average of weights and batch-norm statistics that becomes the trained model; 0: keep the last
    weights. At the start it is lower, as in TensorFlow: min(decay, (1 + steps) / (10 + steps))."""
    balance: Balance = "none"
    """Compensation for classes of different size: sampling (each epoch shows all classes equally often), loss (images
    of rare classes weigh more) or none."""
    label_smoothing: float
    """Share of the target that is spread over all classes."""
    weight_decay: float
    """Weight decay of all weights except batch norm."""
    dropout: float | Literal["arch"] = "arch"
    """Probability of dropout before the classifier; arch: the architecture's value."""
    bn_momentum: float | Literal["arch"] = "arch"
    """Share of a new batch in the batch-norm statistics; arch: the architecture's value."""
    batch_norm: BatchNorm = "batch"
    """Statistics that batch norm uses in training: batch (those of each batch), recentred (the same, but the initial
    network first gets the images' statistics, with its function unchanged) or frozen (those of the initial network)."""
    estimate_statistics: int
    """Number of training images (16 or more) from which batch-norm statistics are estimated before the model is scored;
    0: use the statistics of training."""
    mixup: float = 0.0
    """Alpha of mixup; 0: off."""
    cutmix: float = 0.0
    """Alpha of CutMix; 0: off. With mixup, each is used for half of the batches."""
    augmentation: AugmentationKind
    """Augmentation: shift (by up to a sixteenth of the side) or inception (a resized crop of random area and aspect
    ratio)."""
    scale_low: float = 0.08
    """Smallest area of an inception crop, as a share of the image."""
    auto_augment: str = ""
    """Augmentation policy of timm, such as rand-m9-mstd0.5-inc1; empty: none. Not available with --loader array."""
    random_erasing: float = 0.0
    """Probability that noise replaces a part of an image."""
    mirror: Mirror = "auto"
    """Mirror half of the training images at random: yes, no or auto. auto: mirror them, except for digits,
    fashion-mnist, and classes whose names suggest mirror images, such as left and right."""
    crop: float
    """Side of the central square that the model sees when it is scored, as a share of the image's shorter side."""
    seed: int = 0
    """Random seed."""

    accelerator: Accelerator = "auto"
    """Device to train on: cuda or cpu; auto: a GPU if one is available."""
    mixed_precision: Precision = "auto"
    """Mixed precision: no, bf16 or fp16; auto: on a GPU bf16 if it is supported, else fp16; on a CPU no."""
    compile: bool = False
    """Compile the network with torch.compile, which takes a minute or more and then speeds up a GPU."""
    threads: int | Literal["auto"] = "auto"
    """Number of CPU threads; results repeat bit for bit only with the same number. auto: torch's choice."""
    checkpoint_every: int = 1
    """Number of epochs between checkpoints."""

    def __post_init__(self) -> None:
        if self.epochs != "auto":
            require_int("--epochs", self.epochs, 1, 10**9)
        for name, low in (("batch_size", 2), *((name, 0) for name in _COUNTS)):
            require_int(_flag(name), getattr(self, name), low, 10**9)
        require_int("--retries", self.retries, 0, 20)
        if 0 < self.estimate_statistics < _FEWEST_FOR_STATISTICS:
            raise ValueError(
                f"--estimate-statistics must be 0 (off) or at least {_FEWEST_FOR_STATISTICS} images, as fewer give no "
                f"useful means and variances, but got {self.estimate_statistics}"
            )
        for name in ("seed", "checkpoint_every"):
            require_int(_flag(name), getattr(self, name), 1 if name == "checkpoint_every" else 0, 2**63 - 1)
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
            require_number(_flag(name), getattr(self, name), least, most)
        if self.dropout != "arch":
            require_number("--dropout", self.dropout, 0, 0.99)
        if self.bn_momentum != "arch":
            require_number("--bn-momentum", self.bn_momentum, 1e-9, 1)
        if self.threads != "auto":
            require_int("--threads", self.threads, 1, MOST_THREADS)
        for name, kind in (
            ("optimizer", Optimizer),
            ("batch_norm", BatchNorm),
            ("balance", Balance),
            ("schedule", Schedule),
            ("accelerator", Accelerator),
            ("mixed_precision", Precision),
        ):
            require_choice(_flag(name), getattr(self, name), get_args(kind))
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ValueError(f"--batch-size must be even for mixup and CutMix, but got {self.batch_size}")
        self.variation()  # checks the fields on augmentation

    def on_same_machine(self, other: "TrainConfig") -> "TrainConfig":
        """Return the other recipe with the seed of this one, and its settings of the machine."""
        names = ("seed", "mirror", "accelerator", "mixed_precision", "compile", "threads", "checkpoint_every")
        return dataclasses.replace(other, **{name: getattr(self, name) for name in names})

    def variation(self) -> Augmentation:
        """Return the fields on augmentation in the form that data sets take."""
        return Augmentation(
            kind=self.augmentation,
            scale_low=self.scale_low,
            auto_augment=self.auto_augment,
            random_erasing=self.random_erasing,
            mirror=self.mirror,
        )

    def for_images(self, images: int) -> "TrainConfig":
        """Return the recipe with a fixed number of epochs for this many training images."""
        if self.epochs != "auto":
            return self
        needed = math.ceil(_AUTO_STEPS / max(1, images // self.batch_size))
        return dataclasses.replace(self, epochs=min(max(needed, _AUTO_EPOCHS), _MOST_AUTO_EPOCHS))

    @property
    def fixed_epochs(self) -> int:
        """The number of epochs of a recipe that `for_images` returned."""
        if self.epochs == "auto":
            raise ValueError("--epochs auto needs the number of images")
        return self.epochs

    def identity(self) -> dict[str, Any]:
        """Return the fields that must not change while a training is resumed."""
        fields = dataclasses.asdict(self)
        # the effect of `mirror` depends on the images; see `mnas.data.mirror.to_store`
        for may_change in ("accelerator", "mixed_precision", "compile", "threads", "checkpoint_every", "mirror"):
            del fields[may_change]
        for later, before in _BEFORE.items():
            if fields[later] == before:
                del fields[later]
        return fields

    def batch_size_for(self, images: int) -> int:
        """Return the number of images per step for this many training images."""
        return halved_batch(self.batch_size, images, self.for_images(images).fixed_epochs, self.fewest_steps)

    def device(self) -> "torch.device":
        """Return the device. Raises ValueError if CUDA is requested but missing."""
        return device_of(self.accelerator)


def _flag(name: str) -> str:
    """Return the flag of a field, by which errors name it."""
    return f"--{name.replace('_', '-')}"
