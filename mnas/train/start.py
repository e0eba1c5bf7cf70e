"""The first steps of a training: join the other processes, make the network, and check the batch."""

import datetime
import itertools
from collections.abc import Callable, Iterable
from copy import deepcopy

import accelerate
import torch
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn

from mnas.architecture import Architecture
from mnas.data.augment import normalised
from mnas.data.balance import class_weights
from mnas.data.batches import Batches
from mnas.nn.network import Network, build_network
from mnas.nn.recentre import recentre
from mnas.train.config import TrainConfig
from mnas.train.distillation import TaughtBatches
from mnas.train.scoring import moments

_RECENTRING_IMAGES, _RECENTRING_BATCH = 1024, 64


def make_accelerator(device: torch.device, precision: str, *, compiled: bool = False) -> accelerate.Accelerator:
    """Return the accelerator that joins the processes of a training.

    Args:
        precision: a `Precision`.
        compiled: compile the network.
    """
    if precision == "auto":
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "no" if device.type == "cpu" else "bf16" if bf16 else "fp16"
    return accelerate.Accelerator(
        mixed_precision=precision,
        cpu=device.type == "cpu",
        dynamo_backend="inductor" if compiled else None,
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=datetime.timedelta(days=1)),  # the others wait while one process scores
        ],
    )


def starting_network(initial: Network | None, arch: Architecture, batches: Batches) -> Network:
    """Return a copy of `initial`, or fresh weights if it is None.

    Raises:
        ValueError: `initial` has another architecture, or another number of classes than the data.
    """
    if initial is None:
        return build_network(arch, len(batches.classes))
    if initial.arch != arch or initial.classifier.out_features != len(batches.classes):
        raise ValueError(
            f"the initial weights must have the architecture {arch.fingerprint} and {len(batches.classes)} classes, "
            f"but they have {initial.arch.fingerprint} and {initial.classifier.out_features} classes"
        )
    return deepcopy(initial)


def recentre_on(network: Network, batches: Batches, config: TrainConfig, device: torch.device) -> None:
    """Recentre the network on training images, augmented as in training; every process takes the same ones."""
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = moments(batches.mean, batches.std, device)
    size = min(_RECENTRING_BATCH, batches.counts["train"])
    source = batches.training(config.fixed_epochs, size)  # a number that no training epoch has
    chosen = itertools.islice(source, max(1, _RECENTRING_IMAGES // size))
    recentre(network, (normalised(images.to(device), mean, std) for images, _ in chosen))


def balance(batches: Batches, config: TrainConfig, device: torch.device) -> Tensor | None:
    """Let the batches show all classes equally often, or return the weight of each class, as the recipe says.

    Raises:
        ValueError: the labels are unknown before reading.
    """
    if config.balance == "none":
        return None
    if config.balance == "sampling":
        labelled = batches.labelled if isinstance(batches, TaughtBatches) else batches
        labelled.train_labels()  # raises where they are unknown
        labelled.balanced = True
        return None
    if isinstance(batches, TaughtBatches):
        return None  # its own loss has the weights
    return class_weights(batches.train_labels(), len(batches.classes)).to(device)


def freeze_statistics(network: nn.Module) -> None:
    """Let the batch norms of a network in training mode use their stored statistics, and keep them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@torch.no_grad()
def losses_at_start(
    network: Network,
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    config: TrainConfig,
) -> tuple[float, float]:
    """Return the mean losses on normalised images of the network in training mode, and of equal outputs."""
    network.train()
    if config.batch_norm == "frozen":
        freeze_statistics(network)
    own, equal = 0.0, 0.0
    count = 0
    for x, targets in batches:
        logits = network(x)
        own += float(loss(logits, targets))
        equal += float(loss(torch.zeros_like(logits), targets))
        count += 1
    return own / count, equal / count


def check_batch(batch_size: int, world: int, mixes: bool) -> None:
    """Raise ValueError if `world` processes cannot share a step's images evenly."""
    if batch_size % (world * (2 if mixes else 1)) or batch_size < 2 * world:
        raise ValueError(
            f"--batch-size must be a multiple of the number of processes{' times 2 (mixup)' if mixes else ''}, and at "
            f"least 2 per process, but got {batch_size} images for {world} processes; choose another --batch-size"
        )
