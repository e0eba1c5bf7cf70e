"""The recipe of a full training: every field is an option, and a preset (mnas/train/presets) provides the values."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mnas.data.augmentation import Augmentation, AugmentationKind
from mnas.data.mirror import Mirror
from mnas.require import flag_of, require_choice, require_int, require_number
from mnas.train.machine import halved_batch
from mnas.train.step_recipe import StepRecipe

Balance = Literal["none", "sampling", "loss"]
_AUTO_EPOCHS, _AUTO_STEPS, _MOST_AUTO_EPOCHS = 12, 180, 30
_COUNTS = ("fewest_steps", "patience")
_BEFORE: dict[str, object] = {"batch_norm": "batch", "balance": "none", "patience": 0, "retries": 0}
"""Fields that later versions added, with the behaviour of a training without them, which therefore still resumes."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(StepRecipe):
    """The recipe of a training. Raises ValueError if a field is out of range."""

    epochs: int | Literal["auto"]
    """Number of training epochs; auto: 12, or as many as 180 steps need, up to 30, as few images need more epochs."""
    fewest_steps: int = 0
    """Minimum number of steps of a training: mnas halves the batch size, down to 16, to reach it. Small data sets need
    many steps to learn."""
    patience: int = 0
    """Number of epochs without a higher validation accuracy after which a training ends, with the weights of its best
    epoch; 0: train all epochs, and use the last weights."""
    retries: int = 0
    """Number of times that a training may go back to its best epoch and continue at a quarter of the learning rate,
    after its loss was not finite or its validation accuracy collapsed; 0: such a training ends with an error."""
    balance: Balance = "none"
    """Compensation for classes of different size: sampling (each epoch shows all classes equally often), loss (images
    of rare classes weigh more) or none."""
    label_smoothing: float
    """Share of the target that is spread over all classes."""
    dropout: float | Literal["arch"] = "arch"
    """Probability of dropout before the classifier; arch: the architecture's value."""
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
    compile: bool = False
    """Compile the network with torch.compile, which takes a minute or more and then speeds up a GPU."""
    checkpoint_every: int = 1
    """Number of epochs between checkpoints."""

    def __post_init__(self) -> None:
        require_int("--batch-size", self.batch_size, 2, 10**9)
        super().__post_init__()
        if self.epochs != "auto":
            require_int("--epochs", self.epochs, 1, 10**9)
        for name in _COUNTS:
            require_int(flag_of(name), getattr(self, name), 0, 10**9)
        require_int("--retries", self.retries, 0, 20)
        require_int("--checkpoint-every", self.checkpoint_every, 1, 2**63 - 1)
        for name, least, most in (
            ("label_smoothing", 0, 0.99),
            ("mixup", 0, 100),
            ("cutmix", 0, 100),
            ("crop", 0.1, 1),
        ):
            require_number(flag_of(name), getattr(self, name), least, most)
        if self.dropout != "arch":
            require_number("--dropout", self.dropout, 0, 0.99)
        require_choice("--balance", self.balance, get_args(Balance))
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
