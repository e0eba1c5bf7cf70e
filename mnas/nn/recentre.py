"""Give batch norms the statistics of other images without changing the network's function.

A pretrained network's statistics are those of ImageNet. In training, batch norm uses the statistics of the batch
instead, which changes the function of every layer before the first step. Estimating the statistics again does the same
in evaluation.
"""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn


@torch.no_grad()
def recentre(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set batch-norm statistics to those of the batches, and move the difference into scale and shift.

    In evaluation mode, in which it leaves the network, the outputs stay the same to rounding. A following training
    begins near this function if its images have these statistics.

    Args:
        batches: normalised images (B, 3, S, S), on the network's device.

    Raises:
        ValueError: there are no images.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms}

    def collect(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        x = inputs[0].double()
        rows = torch.full((norm.num_features,), float(x.numel() // norm.num_features), dtype=torch.float64)
        sums[norm] += torch.stack([rows, x.sum((0, 2, 3)).cpu(), x.square().sum((0, 2, 3)).cpu()])

    network.eval()
    hooks = [norm.register_forward_pre_hook(partial(collect)) for norm in norms]
    try:
        for images in batches:
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, (rows, total, squares) in sums.items():
        if not rows[0]:
            raise ValueError("recentring needs images, but got none")
        mean = total / rows
        _move(norm, mean, (squares / rows - mean.square()).clamp(min=0) * (rows / (rows - 1).clamp(min=1)))


def _move(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Set mean and variance (C,), and change scale and shift so that the function stays the same."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    before = (norm.running_var.double().cpu() + norm.eps).sqrt()
    factor = norm.weight.double().cpu() / before
    norm.bias.copy_(norm.bias.double().cpu() + factor * (mean - norm.running_mean.double().cpu()))
    norm.weight.copy_(factor * (variance + norm.eps).sqrt())
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
