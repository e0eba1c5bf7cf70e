"""Wide 1x1 convolutions with batch norm and activation, trained on a CPU in two passes over memory instead of ten.

The statistics of z = W x follow from those of the narrower x: mean W mean(x), variances the diagonal of W cov(x) W'.
So scale and shift are available before z is computed, z is never stored, and batch norm's backward pass becomes
products of small matrices. These are the same sums in another order, so results agree to rounding. Forward and backward
for 64 images on one core with AVX-512, 20 to 120 channels of 32x32 take 28 ms instead of 55, and 40 to 240 channels of
16x16 take 15.5 ms instead of 26.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mnas.nn.blocks import ConvNorm

_ROWS_PER_INPUT = 16  # positions per input channel from which the small matrices cost less than the passes they save
_CHUNK = 100_000  # elements that stay in a core's cache between the steps on them


def speed_up_expansions(network: nn.Module) -> None:
    """Make `network` train its wide 1x1 convolutions faster on the CPU.

    Function, parameters and state dict do not change; outputs, gradients and statistics agree to rounding.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, ConvNorm) and _is_expansion(module):
            parent = network.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], _Expansion(module))


def _is_expansion(module: ConvNorm) -> bool:
    conv = module.conv
    if not isinstance(conv, nn.Conv2d) or type(getattr(module, "activation", None)) not in (nn.ReLU, nn.ReLU6):
        return False
    pointwise = conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1
    return pointwise and conv.bias is None and conv.out_channels >= 2 * conv.in_channels


class _Expansion(nn.Module):
    """A replacement of a `ConvNorm` that shares its parts, and falls back to them if the fast way does not apply."""

    def __init__(self, plain: ConvNorm) -> None:
        super().__init__()
        self.conv, self.norm, self.activation = plain.conv, plain.norm, plain.activation
        self.ceiling = 6.0 if isinstance(plain.activation, nn.ReLU6) else float("inf")

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        rows = x.shape[0] * x.shape[2] * x.shape[3]
        fast = norm.training and torch.is_grad_enabled() and x.device.type == "cpu" and norm.momentum is not None
        if not fast or torch.is_autocast_enabled("cpu") or rows < _ROWS_PER_INPUT * x.shape[1]:
            return cast(Tensor, self.activation(norm(self.conv(x))))
        weight = self.conv.weight.flatten(1)
        y, mean, variance = _Expand.apply(x, weight, norm.weight, norm.bias, norm.eps, self.ceiling)
        _update_statistics(norm, mean, variance * (rows / (rows - 1)))
        return cast(Tensor, y)


@torch.no_grad()
def _update_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance, norm.momentum)
    norm.num_batches_tracked.add_(1)


class _Expand(torch.autograd.Function):
    """(x (N, I, H, W), weight (O, I), gamma (O,), beta (O,)) -> activation(norm(weight x)), means, variances (O,)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, ceiling: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        count, inputs, height, width = x.shape
        plain = _rows(x)
        mean = plain.mean(0)
        rows = plain.new_ones(len(plain), inputs + 1)  # the column of ones carries beta, and the gradient's sum
        torch.sub(plain, mean, out=rows[:, :inputs])
        covariance = rows[:, :inputs].t() @ rows[:, :inputs] / len(rows)
        mixed = weight @ covariance
        variance = (mixed * weight).sum(1)
        deviation = (variance + epsilon).rsqrt()
        scaled = weight * (gamma * deviation)[:, None]
        shifted = torch.cat([scaled, beta[:, None]], 1).t()
        y = rows.new_empty(len(rows), len(weight))
        for part in _parts(y):
            torch.mm(rows[part], shifted, out=y[part]).clamp_(0, ceiling)
        ctx.save_for_backward(rows, weight, gamma, y, mixed, deviation, scaled)
        ctx.ceiling, ctx.shape = ceiling, x.shape
        means = weight @ mean
        ctx.mark_non_differentiable(means, variance)
        return y.view(count, height, width, -1).permute(0, 3, 1, 2), means, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, gamma, y, mixed, deviation, scaled = ctx.saved_tensors
        grad = _rows(grad)
        count, inputs, height, width = ctx.shape
        grad_rows = rows.new_empty(len(rows), inputs)
        product = rows.new_zeros(inputs + 1, len(weight))
        for part in _parts(y):
            masked = torch.ops.aten.hardtanh_backward(grad[part], y[part], 0.0, ctx.ceiling)
            product.addmm_(rows[part].t(), masked)
            torch.mm(masked, scaled, out=grad_rows[part])
        along, total = product[:-1].t(), product[-1]
        scale = gamma * deviation
        grad_gamma = deviation * (along * weight).sum(1)
        grad_weight = scale[:, None] * (along - (grad_gamma * deviation)[:, None] * mixed)
        # Batch norm subtracts from its input's gradient the part along that input, and the mean.
        removed = torch.stack([deviation * grad_gamma, total]) * scale / len(rows)
        grad_rows.addmm_(rows, torch.cat([weight.t() * removed[0] @ weight, removed[1:] @ weight]), alpha=-1)
        grad_x = grad_rows.view(count, height, width, inputs).permute(0, 3, 1, 2)
        return grad_x, grad_weight, grad_gamma, total, None, None


def _rows(images: Tensor) -> Tensor:
    """Return (N, C, H, W) as (N * H * W, C), without a copy if the memory is channels_last."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def _parts(matrix: Tensor) -> Iterator[slice]:
    """Yield slices of the matrix's rows that fit in the cache."""
    step = max(1, _CHUNK * torch.get_num_threads() // matrix.shape[1])
    return (slice(start, start + step) for start in range(0, len(matrix), step))
