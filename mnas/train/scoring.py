"""What comes after training: batch-norm statistics estimated again, and the share of images that are right."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnas.data.augment import normalised
from mnas.nn.network import Network


class TrainingError(ValueError):
    """A training that cannot go on: it diverged. One line, with a way out."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A network against labelled images."""

    accuracy: float
    """Share of the images whose class it puts first."""
    loss: float
    """Mean cross entropy, in nats."""


def moments(mean: Iterable[float], std: Iterable[float], device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation as `mnas.data.augment.normalised` takes them."""
    return torch.tensor(tuple(mean), device=device), torch.tensor(tuple(std), device=device)


@torch.no_grad()
def estimate_statistics(network: Network, images: Iterable[Tensor], mean: Tensor, std: Tensor) -> None:
    """Set the batch-norm statistics to the plain means over batches of training images; leaves evaluation mode on.

    Args:
        images: uint8 (B, S, S, 3) each.
        mean, std: (3,), on the network's device.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the plain mean of all batches
        norm.train()
    for batch in images:
        network(normalised(batch.to(mean.device), mean, std))
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def score(network: Network, batches: Iterable[tuple[Tensor, Tensor]], mean: Tensor, std: Tensor) -> Scored:
    """The network as it is (eval or train mode) against all the images.

    Args:
        batches: uint8 (B, S, S, 3) and int64 (B,) each.
        mean, std: (3,), on the network's device.

    Raises:
        TrainingError: logits are not finite.
    """
    right = count = 0
    loss = 0.0
    for images, labels in batches:
        logits = network(normalised(images.to(mean.device), mean, std)).cpu()
        if not bool(logits.isfinite().all()):
            raise TrainingError("diverged: the trained network's outputs are not finite; use a lower --learning-rate")
        right += int((logits.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        count += len(labels)
    return Scored(accuracy=right / count, loss=loss / count)
