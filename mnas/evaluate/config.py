"""Settings of the evaluations, in a module that does not import torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from mnas.data.mirror import Mirror
from mnas.foreign.limits import MOST_THREADS
from mnas.require import flag_of
from mnas.train.machine import Accelerator, device_of, halved_batch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ProxyConfig:
    """Training and scoring of a candidate. Raises ValueError if a field is out of range."""

    epochs: int = 5
    """Number of epochs of each short training (paper: 5). One epoch is one pass over the training images."""
    image_share: float = 1.0
    """Share of each class's training images to train on, the same images for every candidate."""
    batch_size: int = 64
    """Maximum number of images per step (paper: 4096)."""
    fewest_steps: int = 300
    """Minimum number of steps of a training: mnas halves the batch size, down to 16, to reach it. Small data sets need
    many steps to learn."""
    learning_rate: float = 0.064
    """Peak learning rate for 256 images per step; scaled in proportion to the batch size (paper: 0.016)."""
    warmup: float = 0.2
    """Share of the steps in which the learning rate rises from 0."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes (as in the published code)."""
    weight_decay: float = 1e-5
    """Weight decay of all weights except batch norm and biases (as in the published code)."""
    mirror: Mirror = "auto"
    """Mirror half of the training images at random: yes, no or auto. auto: mirror them, except for digits,
    fashion-mnist, and classes whose names suggest mirror images, such as left and right."""
    repeats: int = 1
    """Number of trainings per candidate, each with its own seed; the accuracy is their mean."""
    accelerator: Accelerator = "auto"
    """Device to train on: cuda or cpu; auto: a GPU if one is available."""
    threads: int = 1
    """Number of CPU threads per training; results repeat bit for bit only with the same number."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "fewest_steps", "repeats", "threads"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{flag_of(name)} must be an integer of 1 or more, but got {getattr(self, name)!r}")
        if self.threads > MOST_THREADS:
            raise ValueError(f"--threads must be from 1 to {MOST_THREADS}, but got {self.threads}")
        if self.batch_size < 2:
            raise ValueError("--batch-size must be 2 or more, as batch norm needs a batch, but got 1")
        for name, low, high in (("learning_rate", 1e-9, 1e3), ("warmup", 0, 1), ("label_smoothing", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{flag_of(name)} must be from {low} to {high}, but got {getattr(self, name)!r}")
        if not 0 < self.image_share <= 1:
            raise ValueError(f"--image-share must be above 0 and at most 1, but got {self.image_share!r}")
        if not 0 <= self.weight_decay <= 1:
            raise ValueError(f"--weight-decay must be from 0 to 1, but got {self.weight_decay!r}")
        if self.mirror not in get_args(Mirror):
            raise ValueError(f"--mirror must be one of {', '.join(get_args(Mirror))}, but got {self.mirror!r}")
        if self.accelerator not in get_args(Accelerator):
            raise ValueError(f"--accelerator must be auto, cpu or cuda, but got {self.accelerator!r}")

    def batch_size_for(self, images: int) -> int:
        """Return the number of images per step for this many training images."""
        return halved_batch(self.batch_size, images, self.epochs, self.fewest_steps)

    def device(self) -> "torch.device":
        """Return the device to train on. Raises ValueError if CUDA is requested but missing."""
        return device_of(self.accelerator)


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """A linear classifier on the features of a frozen network. Raises ValueError if a field is out of range."""

    mirror: Mirror = "no"
    """Train the classifier also on mirrored images: yes, no or auto. auto: as in ProxyConfig. Mirroring doubles the
    time and adds about half a point of accuracy to every network."""
    prior: float = 3.0
    """Strength of the classifier's weights: the sum of their prior variances over all standardised features. Smaller
    values regularise more."""
    accelerator: Accelerator = "auto"
    """Device that computes the features: cuda or cpu; auto: a GPU if one is available."""
    threads: int = 1
    """Number of CPU threads; results repeat bit for bit only with the same number."""

    def __post_init__(self) -> None:
        if self.mirror not in get_args(Mirror):
            raise ValueError(f"--mirror must be one of {', '.join(get_args(Mirror))}, but got {self.mirror!r}")
        if type(self.prior) not in (int, float) or not 1e-6 <= self.prior <= 1e6:
            raise ValueError(f"prior must be from 1e-06 to 1e+06, but got {self.prior!r}")
        if self.accelerator not in get_args(Accelerator):
            raise ValueError(f"--accelerator must be auto, cpu or cuda, but got {self.accelerator!r}")
        if type(self.threads) is not int or not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(f"--threads must be from 1 to {MOST_THREADS}, but got {self.threads!r}")

    def device(self) -> "torch.device":
        """Return the device that computes the features. Raises ValueError if CUDA is requested but missing."""
        return device_of(self.accelerator)
