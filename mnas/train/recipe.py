"""Optimizer, schedule, moving average and loss of a training, from timm with the published code's constants.

Tan et al., "MnasNet" (CVPR 2019, arXiv:1807.11626), section 5, and its code (tensorflow/tpu, models/official/mnasnet).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import RMSpropTF
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from mnas.nn.network import Network
from mnas.train.config import TrainConfig
from mnas.train.step_recipe import StepRecipe

Module = TypeVar("Module", bound=nn.Module)
Mix = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Images (B, 3, S, S), labels (B,) and the step's seed -> mixed images, targets (B, classes)."""


def parameter_groups(network: nn.Module, weight_decay: float, *, biases: bool) -> list[dict[str, object]]:
    """Return parameters with weight decay, and without: batch norm, and with `biases` False all of one dimension."""
    norms = {id(p) for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for parameter in network.parameters():
        groups[parameter.ndim > 1 or (biases and id(parameter) not in norms)].append(parameter)
    return [{"params": groups[True], "weight_decay": weight_decay}, {"params": groups[False], "weight_decay": 0.0}]


def rmsprop(groups: list[dict[str, object]], learning_rate: float) -> RMSpropTF:
    """Return TensorFlow's RMSProp: epsilon inside the root, mean squares from 1, the learning rate inside the momentum.

    Decay 0.9, momentum 0.9, epsilon 0.001 (published code). Updating all tensors in one call (`foreach`) gives the same
    bits as updating them one after another, timm's default on CPUs, in 0.7 to 0.85 of the time (two members of the
    space).
    """
    return RMSpropTF(groups, lr=learning_rate, alpha=0.9, momentum=0.9, eps=1e-3, foreach=True)


def optimizer_for(network: nn.Module, config: StepRecipe, batch_size: int) -> torch.optim.Optimizer:
    """Return the optimizer, at the peak learning rate for `batch_size`; weight decay skips batch norm."""
    groups = parameter_groups(network, config.weight_decay, biases=True)
    peak = config.learning_rate * batch_size / 256
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=peak, momentum=0.9, nesterov=True)  # timm's `sgd` is the same
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=peak)
    optimizer: torch.optim.Optimizer = rmsprop(groups, peak)
    return optimizer


def schedule_for(
    optimizer: torch.optim.Optimizer, config: StepRecipe, steps: int
) -> StepLRScheduler | CosineLRScheduler:
    """Return the schedule; `step_update(n)` before step n (from 0) sets its learning rate.

    Published code: warm-up does not delay the decay; both count from step 0.

    Args:
        steps: number of steps per epoch.
    """
    warmup_epochs = min(config.warmup_epochs, config.fixed_epochs / 2)  # a preset's warm-up may exceed a short training
    warmup = {"warmup_t": int(warmup_epochs * steps), "warmup_lr_init": 0.0, "warmup_prefix": False}
    if config.schedule == "cosine":
        total = max(2, config.fixed_epochs * steps)  # timm warns of a single step, whose rate is the first in any case
        return CosineLRScheduler(optimizer, t_initial=total, t_in_epochs=False, **warmup)
    return StepLRScheduler(
        optimizer, decay_t=config.decay_epochs * steps, decay_rate=config.decay_rate, t_in_epochs=False, **warmup
    )


class MovingAverage(Generic[Module]):
    """Moving average of weights and batch-norm statistics, as TensorFlow's: decay min(ema_decay, (1 + n) / (10 + n)).

    n is the number of steps. Without the smaller decay at the start, a short training's average would mostly be its
    first weights.
    """

    def __init__(self, network: Module, decay: float) -> None:
        # timm: decay 1 - (1 + s / gamma) ** -power at its step s + 1; s = n + 1 makes it (1 + n) / (10 + n)
        self._average = ModelEmaV3(network, decay=decay, use_warmup=True, warmup_gamma=9.0, warmup_power=1.0)

    @property
    def network(self) -> Module:
        """The average, in evaluation mode."""
        network: Module = self._average.module
        return network

    def update(self, network: Module, steps: int) -> None:
        """Update the average with the network after this number of steps in total."""
        self._average.update(network, step=steps + 2)


def apply_overrides(network: Network, config: TrainConfig) -> None:
    """Apply the config's dropout and batch-norm momentum; the network's stored architecture does not change."""
    if config.dropout != "arch":
        network.dropout.p = config.dropout
    set_momentum(network, config.bn_momentum)


def set_momentum(network: nn.Module, momentum: float | Literal["arch"]) -> None:
    """Set the share of a new batch in the batch-norm statistics; arch: keep it."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and momentum != "arch":
            module.momentum = momentum


def loss_of(config: TrainConfig, weights: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the mean loss of logits (B, classes) for labels (B,), or for mixup's targets (B, classes).

    Args:
        weights: weight of each class, float (classes,). An image has the weight of its label, a mixed one the mean of
            its target; None: all weigh 1.
    """
    if config.mixup or config.cutmix:
        soft: Callable[[Tensor, Tensor], Tensor] = SoftTargetCrossEntropy()
        if weights is None:
            return soft
        return lambda logits, targets: (-(targets * F.log_softmax(logits, 1)).sum(1) * (targets @ weights)).mean()
    if weights is not None:
        return lambda logits, labels: (
            F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing, reduction="none") * weights[labels]
        ).mean()
    return lambda logits, labels: F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)


def mix_of(config: TrainConfig, num_classes: int) -> Mix | None:
    """Return timm's mixup and CutMix, whose draws depend only on the seed; None where both are off."""
    if not (config.mixup or config.cutmix):
        return None
    mixup = Mixup(config.mixup, config.cutmix, label_smoothing=config.label_smoothing, num_classes=num_classes)

    def mix(images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        with _numpy_seeded(seed):
            mixed: tuple[Tensor, Tensor] = mixup(images, labels)
        return mixed

    return mix


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, which timm draws from, and restore it at the end."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
