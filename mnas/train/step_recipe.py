"""The part of a recipe that all trainings have: the steps of the optimizer, and the machine."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from mnas.foreign.limits import MOST_THREADS
from mnas.require import flag_of, require_choice, require_int, require_number
from mnas.train.machine import Accelerator, device_of

if TYPE_CHECKING:
    import torch

Optimizer = Literal["rmsprop", "sgd", "adamw"]
Schedule = Literal["step", "cosine"]
Precision = Literal["auto", "no", "bf16", "fp16"]
BatchNorm = Literal["batch", "recentred", "frozen"]
_FEWEST_FOR_STATISTICS = 16


@dataclass(frozen=True, kw_only=True)
class StepRecipe(ABC):
    """The recipe of a training's steps. Raises ValueError if a field is out of range."""

    batch_size: int
    """Number of images per step; under torchrun, the total of all processes."""
    optimizer: Optimizer
    """Optimizer: rmsprop (MnasNet's, with TensorFlow's semantics), sgd (with Nesterov momentum 0.9) or adamw."""
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
    weight_decay: float
    """Weight decay of all weights except batch norm."""
    bn_momentum: float | Literal["arch"] = "arch"
    """Share of a new batch in the batch-norm statistics; arch: the architecture's value."""
    batch_norm: BatchNorm = "batch"
    """Statistics that batch norm uses in training: batch (those of each batch), recentred (the same, but the initial
    network first gets the images' statistics, with its function unchanged) or frozen (those of the initial network)."""
    estimate_statistics: int
    """Number of training images (16 or more) from which batch-norm statistics are estimated before the model is scored;
    0: use the statistics of training. Frozen statistics stay."""
    seed: int = 0
    """Random seed."""

    accelerator: Accelerator = "auto"
    """Device to train on: cuda or cpu; auto: a GPU if one is available."""
    mixed_precision: Precision = "auto"
    """Mixed precision: no, bf16 or fp16; auto: on a GPU bf16 if it is supported, else fp16; on a CPU no."""
    threads: int | Literal["auto"] = "auto"
    """Number of CPU threads; results repeat bit for bit only with the same number. auto: torch's choice."""

    def __post_init__(self) -> None:
        require_int("--batch-size", self.batch_size, 1, 10**9)
        require_int("--estimate-statistics", self.estimate_statistics, 0, 10**9)
        if 0 < self.estimate_statistics < _FEWEST_FOR_STATISTICS:
            raise ValueError(
                f"--estimate-statistics must be 0 (off) or at least {_FEWEST_FOR_STATISTICS} images, as fewer give no "
                f"useful means and variances, but got {self.estimate_statistics}"
            )
        require_int("--seed", self.seed, 0, 2**63 - 1)
        for name, least, most in (
            ("learning_rate", 1e-9, 1e3),
            ("warmup_epochs", 0, 1e9),
            ("decay_rate", 1e-9, 1),
            ("decay_epochs", 1e-3, 1e9),
            ("ema_decay", 0, 0.9999999),
            ("weight_decay", 0, 1),
        ):
            require_number(flag_of(name), getattr(self, name), least, most)
        if self.bn_momentum != "arch":
            require_number("--bn-momentum", self.bn_momentum, 1e-9, 1)
        if self.threads != "auto":
            require_int("--threads", self.threads, 1, MOST_THREADS)
        for name, kind in (
            ("optimizer", Optimizer),
            ("schedule", Schedule),
            ("batch_norm", BatchNorm),
            ("accelerator", Accelerator),
            ("mixed_precision", Precision),
        ):
            require_choice(flag_of(name), getattr(self, name), get_args(kind))

    @property
    @abstractmethod
    def fixed_epochs(self) -> int:
        """The number of training epochs."""

    def device(self) -> "torch.device":
        """Return the device. Raises ValueError if CUDA is requested but missing."""
        return device_of(self.accelerator)
