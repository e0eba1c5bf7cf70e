"""Depthwise convolutions of more than three columns, whose weight gradient oneDNN computes slowly on x86 processors.

Its fast depthwise kernel for weight gradients takes at most three columns; wider ones go to the kernel for any grouped
convolution, which works on 16 times as many weights. Here the columns are taken three at a time instead: the same sums,
faster even with the copies that this needs. Five columns at stride 1 need none: the middle three are one call, the
outer two and the middle one again another, on pairs of columns as one column of twice the channels (weight gradient of
5x5, 64 images, one core with AVX-512: 120 channels of 32x32 14 ms, with copies 29, oneDNN's own 53; 400 of 4x4 1.3, 1.9
and 7.5).
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnas.nn.blocks import same_pads

_COLUMNS = 3
_ROWS = 5  # of an image below which oneDNN's fast kernel takes no zeros above and below it
_LARGE = 4_000_000  # elements of an input from which four calls on a quarter each are faster than one at stride 2
_SMALL = 100_000  # elements of an input below which the additional calls cost more than they save


def speed_up_depthwise(network: nn.Module) -> None:
    """Have `network` compute the weight gradients of its wide depthwise convolutions in the fast way, on the CPU.

    Function, parameters and state dict stay as they are; gradients agree to rounding.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and _is_wide_depthwise(module):
            parent = network.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], _WideDepthwise(module))


def _is_wide_depthwise(conv: nn.Conv2d) -> bool:
    channels = conv.in_channels
    depthwise = conv.groups == channels == conv.out_channels and conv.bias is None and conv.dilation == (1, 1)
    square = conv.kernel_size[0] == conv.kernel_size[1]  # 1x7 on one channel is depthwise too
    return depthwise and square and conv.kernel_size[1] > _COLUMNS


class _WideDepthwise(nn.Module):
    """Stands in for a convolution and shares its parameter; SAME padding at stride 2 is done here."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight
        self.kernel, self.stride, self.padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
        self.same = type(conv) is not nn.Conv2d  # SameConv2d, whose own padding is 0

    def forward(self, x: Tensor) -> Tensor:
        left = right = int(self.padding)
        if self.same:
            size = x.shape[-1]
            assert size == x.shape[-2]
            left, right = same_pads(size, self.kernel, self.stride)
        if x.numel() < _SMALL:
            x = x if left == right else F.pad(x, (left, right, left, right))
            return F.conv2d(x, self.weight, None, self.stride, left if left == right else 0, 1, x.shape[1])
        return cast(Tensor, _Depthwise.apply(x, self.weight, self.stride, left, right))


class _Depthwise(torch.autograd.Function):
    """(x (N, C, H, H), weight (C, 1, K, K)) -> depthwise convolution; `left` zeros before and `right` after."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, left: int, right: int) -> Tensor:
        ctx.stride, ctx.left, ctx.right = stride, left, right
        ctx.save_for_backward(x, weight)
        if left == right:
            return F.conv2d(x, weight, None, stride, left, 1, x.shape[1])
        return F.conv2d(F.pad(x, (left, right, left, right)), weight, None, stride, 0, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        stride, left, right = ctx.stride, ctx.left, ctx.right
        channels, kernel, size = x.shape[1], weight.shape[-1], x.shape[-1]
        # a gradient in another layout would cost a reordering in each of the calls below
        grad = grad.contiguous(memory_format=torch.channels_last)

        def backward(x: Tensor, weight: Tensor, padding: int, want_x: bool) -> Tensor:
            mask = [want_x, not want_x, False]
            grads = torch.ops.aten.convolution_backward(
                grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], channels, mask
            )
            return cast(Tensor, grads[0 if want_x else 1])

        grad_x = grad_weight = None
        if ctx.needs_input_grad[0] and left == right and stride == 1:
            # the transpose of such a convolution is one with the kernel turned round, and forward is the faster kernel
            grad_x = F.conv2d(grad, weight.flip(2, 3), None, 1, kernel - 1 - left, 1, channels)
        elif ctx.needs_input_grad[0] and stride == 2 and x.numel() >= _LARGE:
            grad_x = _spread(grad, weight, size, left)
        elif ctx.needs_input_grad[0]:
            side = left + size + right
            shape_only = torch.empty_like(x).resize_(
                x.shape[0], channels, side, side, memory_format=torch.channels_last
            )
            grad_x = backward(shape_only, weight, 0, True)[..., left : left + size, left : left + size]
        if ctx.needs_input_grad[1] and stride == 1 and left == right == 2 and kernel == 5 and size % 2 == 0:
            grad_weight = _five_columns(x, grad, weight)
        elif ctx.needs_input_grad[1]:
            parts = []
            for column in range(0, kernel, _COLUMNS):
                taps = weight[..., column : column + _COLUMNS]
                # the columns that these taps see, and no more, or the output would be wider than `grad`
                before = left - column
                after = (grad.shape[-1] - 1) * stride + taps.shape[-1] - size - before
                parts.append(backward(_padded(x, left, right, before, after), taps, 0, False))
            grad_weight = torch.cat(parts, -1)
        return grad_x, grad_weight, None, None, None


def _spread(grad: Tensor, weight: Tensor, size: int, left: int) -> Tensor:
    """The gradient of a stride-2 convolution's input (N, C, size, size): even and odd rows and columns apart.

    Each of the four is a stride-1 convolution of `grad` with every second tap, for which forward is the faster kernel.
    """
    count, channels = grad.shape[:2]
    shape = (count, channels, size, size)
    grad_x = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last)
    for row in (0, 1):
        for column in (0, 1):
            taps = weight[:, :, row::2, column::2].flip(2, 3)
            height, width = taps.shape[2:]
            part = F.conv2d(grad, taps, None, 1, (height - 1, width - 1), 1, channels)
            top, start = (row - left) % 2, (column - left) % 2  # the first row and column that these taps reach
            above, before = (top + left - row) // 2, (start + left - column) // 2
            target = grad_x[:, :, top::2, start::2]
            target.copy_(part[:, :, above : above + target.shape[2], before : before + target.shape[3]])
    return grad_x


def _five_columns(x: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient of 5x5 depthwise weights at stride 1, two zeros on each side, for an even number of columns."""
    rows = 2
    if x.shape[2] < _ROWS:
        x, rows = _padded(x, rows, rows, 0, 0), 0

    def three(x: Tensor, grad: Tensor) -> Tensor:
        channels = x.shape[1]
        taps = weight[..., :3].repeat(channels // len(weight), 1, 1, 1)  # of which the shape counts
        arguments = None, [1, 1], [rows, 1], [1, 1], False, [0, 0], channels, [False, True, False]
        return cast(Tensor, torch.ops.aten.convolution_backward(grad, x, taps, *arguments)[1])

    def pairs(t: Tensor) -> Tensor:  # in channels_last memory two neighbours are one pixel of twice the channels
        count, channels, height, width = t.shape
        return t.permute(0, 2, 3, 1).reshape(count, height, width // 2, 2 * channels).permute(0, 3, 1, 2)

    near = three(x, grad)
    far = three(pairs(x), pairs(grad)).view(2, *near.shape).sum(0)  # of even and of odd columns
    return torch.cat([far[..., :1], near, far[..., 2:]], -1)


def _padded(x: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """As F.pad on a channels_last tensor (negative `left`, `right` cut off), but only the border is zeroed first."""
    count, channels, height, width = x.shape
    shape = (count, channels, height + top + bottom, width + left + right)
    padded = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    padded[:, :, :top] = 0
    padded[:, :, top + height :] = 0
    padded[..., : max(left, 0)] = 0
    padded[..., padded.shape[-1] - max(right, 0) :] = 0
    inside = x[..., max(-left, 0) : width - max(-right, 0)]
    padded[:, :, top : top + height, max(left, 0) : padded.shape[-1] - max(right, 0)] = inside
    return padded
