"""Score a network after training: estimate batch-norm statistics again, and count correct predictions."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnas.counts import balanced_accuracy, majority_share
from mnas.data.augment import normalised
from mnas.nn.network import Network
from mnas.pages.gallery import Gallery


class TrainingError(ValueError):
    """A training that cannot continue because it diverged; the message is one line, with a remedy."""


class DivergedError(TrainingError):
    """A training whose loss or outputs are not finite, or whose accuracy collapsed."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores of a network on labelled images."""

    accuracy: float
    """Share of the images whose true class has the highest output."""
    loss: float
    """Mean cross entropy, in nats."""
    right: tuple[int, ...]
    """Correct predictions for each class."""
    counts: tuple[int, ...]
    """Number of images of each class."""

    @property
    def majority_share(self) -> float:
        """The accuracy of always predicting the most frequent class."""
        return majority_share(self.counts)

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have images."""
        return balanced_accuracy(self.right, self.counts)


def moments(mean: Iterable[float], std: Iterable[float], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and deviation in the form that `mnas.data.augment.normalised` takes."""
    return torch.tensor(tuple(mean), device=device), torch.tensor(tuple(std), device=device)


@torch.no_grad()
def estimate_statistics(network: nn.Module, images: Iterable[Tensor], mean: Tensor, std: Tensor) -> None:
    """Set batch-norm statistics to the plain means over batches of images; ends in evaluation mode.

    Args:
        images: uint8 (B, S, S, 3) each.
        mean, std: (3,), on the network's device.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # None makes torch take the plain mean of all batches
        norm.train()
    for batch in images:
        network(normalised(batch.to(mean.device), mean, std))
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def score(
    network: Network,
    batches: Iterable[tuple[Tensor, Tensor]],
    mean: Tensor,
    std: Tensor,
    gallery: Gallery | None = None,
) -> Scored:
    """Score the network in its current mode (evaluation or training) on all images.

    Args:
        batches: uint8 (B, S, S, 3) and int64 (B,) each.
        mean, std: (3,), on the network's device.
        gallery: gets all images with their predictions.

    Raises:
        DivergedError: logits are not finite.
    """
    loss = 0.0
    right = counts = torch.zeros(0, dtype=torch.int64)
    for images, labels in batches:
        logits = network(normalised(images.to(mean.device), mean, std)).cpu()
        if not bool(logits.isfinite().all()):
            raise DivergedError("the training diverged: the network's outputs are not finite")
        if not len(counts):
            right = counts = torch.zeros(logits.shape[1], dtype=torch.int64)
        predictions = logits.argmax(1)
        right = right + torch.bincount(labels[predictions == labels], minlength=len(right))
        counts = counts + torch.bincount(labels, minlength=len(counts))
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        if gallery is not None:
            confidences = F.softmax(logits.float(), 1).amax(1)
            gallery.add(*(tensor.numpy() for tensor in (images, labels, predictions, confidences)))
    count = int(counts.sum())
    return Scored(
        accuracy=int(right.sum()) / count,
        loss=loss / count,
        right=tuple(right.tolist()),
        counts=tuple(counts.tolist()),
    )
