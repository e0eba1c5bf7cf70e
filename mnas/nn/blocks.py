"""The layers of a network; one module for each kind of part in `mnas.ops`.

Layer rules: the published MnasNet code (reference in mnas.arch). Batch norm after every convolution, no activation
after a projection, squeeze-and-excitation after the activation of the depthwise convolution.
"""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnas.arch import Arch, Padding
from mnas.architecture import Architecture
from mnas.ops import Activation, ActivationOrNone, Convolution, Layer, Squeeze


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding, like timm's `Conv2dSame`; importing timm would take seconds."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for axis in (1, 0):  # F.pad expects columns first
            reach = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
            pads += same_pads(x.shape[2 + axis], reach, self.stride[axis])
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class ThinPointwise(nn.Conv2d):
    """A strided 1x1 convolution of few channels, which selects the used pixels and convolves them at stride 1.

    In torch 2.14's oneDNN, on processors without AVX-512, the gradient of the strided form writes outside its memory.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x[:, :, :: self.stride[0], :: self.stride[1]], self.weight)


_THIN = 8  # number of channels from which the gradient is correct


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the number of zeros before and after `size` pixels that give ceil(size / stride) outputs."""
    missing = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return missing // 2, missing - missing // 2


def convolution(
    padding: Padding,
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    groups: int = 1,
    dilation: int = 1,
    *,
    bias: bool = False,
) -> nn.Conv2d:
    """Return a convolution; kernel and stride are one number or (rows, columns).

    At stride 1 both paddings are the same.
    """
    kernels = (kernel, kernel) if isinstance(kernel, int) else kernel
    if kernels == (1, 1) and stride not in (1, (1, 1)) and groups == 1 and inputs < _THIN:
        assert not bias
        return ThinPointwise(inputs, outputs, kernels, stride, bias=False)
    if padding == "same" and stride not in (1, (1, 1)):
        return SameConv2d(inputs, outputs, kernels, stride, 0, dilation, groups, bias=bias)
    around = (dilation * (kernels[0] - 1) // 2, dilation * (kernels[1] - 1) // 2)
    return nn.Conv2d(inputs, outputs, kernels, stride, around, dilation, groups, bias=bias)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm (without it a bias) and activation (unless `none`): (N, C, H, W) -> (N, C', H', W')."""

    def __init__(
        self,
        arch: Architecture,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        groups: int = 1,
        activation: ActivationOrNone = "none",
        norm: bool = True,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.conv = convolution(arch.padding, inputs, outputs, kernel, stride, groups, dilation, bias=not norm)
        if norm:
            self.norm = nn.BatchNorm2d(outputs, eps=arch.bn_epsilon, momentum=arch.bn_momentum)
        if activation != "none":
            self.activation = ACTIVATIONS[activation](inplace=True)

    @staticmethod
    def of(arch: Arch, part: Convolution) -> "ConvNorm":
        """Return the module of a part of `arch`."""
        shape = (part.inputs, part.outputs, part.kernel, part.stride, part.groups)
        return ConvNorm(arch, *shape, part.activation, part.norm)


ACTIVATIONS: dict[Activation, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
}
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
}


class SqueezeExcite(nn.Module):
    """Scales channels by a gate of their means: 1x1 to `squeezed`, activation, 1x1 back, gate; both 1x1 with bias."""

    def __init__(self, part: Squeeze) -> None:
        super().__init__()
        self.part = part
        self.reduce = nn.Conv2d(part.channels, part.squeezed, 1)
        self.expand = nn.Conv2d(part.squeezed, part.channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)

    def gate(self, x: Tensor) -> Tensor:
        """Return the factor of each channel, (N, C, 1, 1)."""
        squeezed = _FUNCTIONS[self.part.activation](self.reduce(x.mean((2, 3), keepdim=True)))
        return _FUNCTIONS[self.part.gate](self.expand(squeezed))


class PooledSkip(nn.Module):
    """A 3x3 average pool at the layer's stride, over the valid pixels only; channels zero-padded or cut to fit.

    With `same` padding LiteRT divides by the count of valid pixels. Symmetric padding differs at stride 2 on even
    sizes, and `count_include_pad=False` ignores earlier padding, so the count is explicit.
    """

    def __init__(self, layer: Layer, padding: str) -> None:
        super().__init__()
        self.stride, self.out_filters, self.same = layer.stride, layer.out_filters, padding == "same"

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2 and self.same:
            # SAME pads odd sizes by a pixel on both sides, even sizes only after the image.
            column_pad, row_pad = x.shape[-1] % 2, x.shape[-2] % 2
            pads = (column_pad, 1, row_pad, 1)
            total = F.avg_pool2d(F.pad(x, pads), 3, 2)
            share = F.avg_pool2d(F.pad(x.new_ones(1, 1, *x.shape[-2:]), pads), 3, 2)
            x = total / share
        else:
            x = F.avg_pool2d(x, 3, self.stride, padding=1, count_include_pad=False)
        surplus = self.out_filters - x.shape[1]
        return F.pad(x, (0, 0, 0, 0, 0, surplus)) if surplus > 0 else x[:, : self.out_filters]


class LayerModule(nn.Module):
    """One `Layer`: (N, in_filters, H, W) -> (N, out_filters, ceil(H / stride), ceil(W / stride)).

    Its submodules have the names of the layer's parts; a pooled skip is `pool`.
    """

    def __init__(self, layer: Layer, arch: Arch) -> None:
        super().__init__()
        self.layer = layer
        # The order of registration is that of initial weights and of optimizers' states, so it must not change.
        for conv in layer.convolutions:
            self.add_module(conv.name, ConvNorm.of(arch, conv))
        for part in layer.parts:
            if isinstance(part, Squeeze):
                self.add_module(part.name, SqueezeExcite(part))
        if layer.skip == "pool":
            self.pool = PooledSkip(layer, arch.padding)
        self.names = tuple(part.name for part in layer.parts if isinstance(part, Convolution | Squeeze))

    def forward(self, x: Tensor) -> Tensor:
        return self.tapped(x, 0)[1]

    def tapped(self, x: Tensor, parts: int) -> tuple[Tensor, Tensor]:
        """Return the result of the first `parts` parts (0: the input), and that of the layer."""
        tap = y = x
        for number, name in enumerate(self.names, 1):
            y = getattr(self, name)(y)
            if number == parts:
                tap = y
        skipped = self.skipped(x)
        return tap, y if skipped is None else y + skipped

    def skipped(self, x: Tensor) -> Tensor | None:
        """Return what the skip adds to the result for an input (N, in_filters, H, W); None without a skip."""
        if self.layer.skip == "pool":
            return cast(Tensor, self.pool(x))
        return x if self.layer.skip == "identity" else None
