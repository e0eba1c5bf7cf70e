"""Faster depthwise convolutions for cases in which torch and oneDNN are slow on x86 processors.

SAME padding at stride 2 of an even size adds one zero more after the image than before it, for which torch copies the
image. A kernel with a row and a column of zeros in front is the same convolution with equal padding, and needs no copy.

oneDNN's fast depthwise kernel for weight gradients supports at most three columns. It passes wider kernels to the one
for any grouped convolution, which works on 16 times as many weights. This module processes three columns at a time
instead. The sums are the same, and it is faster even with the copies that it needs. For an even number of columns it
needs no copies, because in channels_last memory two neighbours are one column of twice the channels. At stride 2, up to
six columns are three such pairs. At stride 1, one call computes the middle three of five columns, and another, on
pairs, the outer two and the middle one again.

Times on one core with AVX-512 for 64 images and 5x5 kernels: the weight gradient of 120 channels of 32x32 takes 14 ms,
29 ms with copies, and 53 ms in oneDNN. Forward and backward at stride 2 of 144 channels of 32x32 take 47 ms, and 111 ms
in torch.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mnas.nn.blocks import same_pads

_COLUMNS = 3
_ROWS = 5  # image height below which oneDNN's fast kernel does not support zeros above and below
_SMALL = 100_000  # input elements below which the additional calls cost more than they save


def speed_up_depthwise(network: nn.Module) -> None:
    """Make `network` train its depthwise convolutions faster on the CPU.

    Function, parameters and state dict do not change; gradients agree to rounding.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and _gains(module):
            parent = network.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], _Depthwise(module))


def _gains(conv: nn.Conv2d) -> bool:
    channels = conv.in_channels
    depthwise = conv.groups == channels == conv.out_channels and conv.bias is None and conv.dilation == (1, 1)
    square = conv.kernel_size[0] == conv.kernel_size[1]  # excludes 1x7 on one channel, which is also depthwise
    return depthwise and square and (conv.kernel_size[1] > _COLUMNS or type(conv) is not nn.Conv2d)


class _Depthwise(nn.Module):
    """A replacement of a convolution that shares its parameter, and handles SAME padding at stride 2."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight
        self.kernel, self.stride, self.padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
        self.same = type(conv) is not nn.Conv2d  # SameConv2d, whose own padding is 0

    def forward(self, x: Tensor) -> Tensor:
        weight, padding = self.weight, self.padding
        if self.same:
            size = x.shape[-1]
            assert size == x.shape[-2]
            before, padding = same_pads(size, self.kernel, self.stride)
            weight = F.pad(weight, (padding - before, 0, padding - before, 0))
        if x.numel() < _SMALL or torch.is_autocast_enabled("cpu"):
            return F.conv2d(x, weight, None, self.stride, padding, 1, x.shape[1])
        return cast(Tensor, _Convolve.apply(x, weight, self.stride, padding))


class _Convolve(torch.autograd.Function):
    """(x (N, C, H, H), weight (C, 1, K, K)) -> depthwise convolution with `padding` zeros on every side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.stride, ctx.padding = stride, padding
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, None, stride, padding, 1, x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        kernel, size = weight.shape[-1], x.shape[-1]
        # A gradient in another layout would be reordered in each of the calls below.
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0] and stride == 1:
            # The transpose equals a convolution with the flipped kernel, and oneDNN's forward kernel is faster.
            grad_x = F.conv2d(grad, weight.flip(2, 3), None, 1, kernel - 1 - padding, 1, x.shape[1])
        elif ctx.needs_input_grad[0]:
            grad_x = gradient(grad, x, weight, (stride, stride), (padding, padding), of_x=True)
        if ctx.needs_input_grad[1] and stride == 1 and kernel == 5 and padding == 2 and size % 2 == 0:
            grad_weight = _five_columns(x, grad, weight)
        elif ctx.needs_input_grad[1] and stride == 2 and size % 2 == 0 and padding <= 2 and kernel <= padding + 4:
            grad_weight = _six_columns(x, grad, kernel, padding)
        elif ctx.needs_input_grad[1] and kernel > _COLUMNS:
            parts = []
            for column in range(0, kernel, _COLUMNS):
                taps = weight[..., column : column + _COLUMNS]
                # Only the columns under these taps, otherwise the output would be wider than `grad`.
                before = padding - column
                after = (grad.shape[-1] - 1) * stride + taps.shape[-1] - size - before
                padded = _padded(x, padding, padding, before, after)
                parts.append(gradient(grad, padded, taps, (stride, stride), (0, 0), of_x=False))
            grad_weight = torch.cat(parts, -1)
        elif ctx.needs_input_grad[1]:
            grad_weight = gradient(grad, x, weight, (stride, stride), (padding, padding), of_x=False)
        return grad_x, grad_weight, None, None


def gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], *, of_x: bool
) -> Tensor:
    """Return a depthwise convolution's gradient for its input or its weight, of which only the shape matters."""
    mask = [of_x, not of_x, False]
    arguments = None, list(stride), list(padding), [1, 1], False, [0, 0], x.shape[1], mask
    return cast(Tensor, torch.ops.aten.convolution_backward(grad, x, weight, *arguments)[0 if of_x else 1])


def _six_columns(x: Tensor, grad: Tensor, kernel: int, padding: int) -> Tensor:
    """Return the gradient of depthwise weights at stride 2 from three pairs of columns; their number is even."""
    channels = x.shape[1]
    taps = x.new_empty(2 * channels, 1, kernel, 3)
    paired = gradient(torch.cat([grad, grad], 1), _pairs(x), taps, (2, 1), (padding, 1), of_x=False)
    # (column in a pair, C, row, pair) -> (C, 1, row, column); the pairs begin two columns before the output's position.
    columns = paired.view(2, channels, 1, kernel, 3).permute(1, 2, 3, 4, 0).reshape(channels, 1, kernel, 6)
    return columns[..., 2 - padding : 2 - padding + kernel].contiguous()


def _five_columns(x: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of 5x5 depthwise weights at stride 1 with padding 2, for an even number of columns."""
    rows = 2
    if x.shape[2] < _ROWS:
        x, rows = _padded(x, rows, rows, 0, 0), 0

    def three(x: Tensor, grad: Tensor) -> Tensor:
        channels = x.shape[1]
        taps = weight[..., :3].repeat(channels // len(weight), 1, 1, 1)  # only its shape matters
        return gradient(grad, x, taps, (1, 1), (rows, 1), of_x=False)

    near = three(x, grad)
    far = three(_pairs(x), _pairs(grad)).view(2, *near.shape).sum(0)  # of even and of odd columns
    return torch.cat([far[..., :1], near, far[..., 2:]], -1)


def _pairs(images: Tensor) -> Tensor:
    """Return (N, C, H, W) as (N, 2 C, H, W / 2), pairing neighbours in a row; no copy if it is channels_last."""
    count, channels, height, width = images.shape
    return images.permute(0, 2, 3, 1).reshape(count, height, width // 2, 2 * channels).permute(0, 3, 1, 2)


def _padded(x: Tensor, top: int, bottom: int, before: int, after: int) -> Tensor:
    """Return F.pad of a channels_last tensor (negative `before` and `after` crop it); only the border is zeroed."""
    count, channels, height, width = x.shape
    shape = (count, channels, height + top + bottom, width + before + after)
    padded = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    padded[:, :, :top] = 0
    padded[:, :, top + height :] = 0
    padded[..., : max(before, 0)] = 0
    padded[..., padded.shape[-1] - max(after, 0) :] = 0
    inside = x[..., max(-before, 0) : width - max(-after, 0)]
    padded[:, :, top : top + height, max(before, 0) : padded.shape[-1] - max(after, 0)] = inside
    return padded
