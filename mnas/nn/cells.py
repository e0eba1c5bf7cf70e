"""The torch network of a cell architecture: one module for each of its steps.

Outputs of the steps are stored by name and released after their last use.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnas.cell_arch import CellArch
from mnas.nn.blocks import ConvNorm, convolution
from mnas.nn.cell_steps import IMAGE, Step, cell_steps
from mnas.ops import ActivationOrNone


class Cells(nn.Module):
    """(N, 3, H, W) images -> (N, channels, H', W'), the last cell's output after ReLU; `parts`: step -> its module."""

    def __init__(self, arch: CellArch) -> None:
        super().__init__()
        self.steps = cell_steps(arch)
        self.channels = self.steps[-1].channels
        # Module names must not contain dots.
        self.parts = nn.ModuleDict({step.name.replace(".", "/"): MODULES[step.op](step, arch) for step in self.steps})
        last_use = {name: number for number, step in enumerate(self.steps) for name in step.inputs}
        self._done_with = [
            [name for name in dict.fromkeys(step.inputs) if last_use[name] == number]
            for number, step in enumerate(self.steps)
        ]

    def forward(self, x: Tensor) -> Tensor:
        values = {IMAGE: x}
        for step, module, done_with in zip(self.steps, self.parts.values(), self._done_with, strict=True):
            values[step.name] = module(*(values[name] for name in step.inputs))
            for name in done_with:
                del values[name]
        (last,) = values.values()
        return last


class Shift(nn.Module):
    """Moves all pixels one up and one left, with zeros in the last row and column."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, 1:, 1:], (0, 1, 0, 1))


class Add(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Concat(nn.Module):
    """Concatenates channels."""

    def forward(self, *values: Tensor) -> Tensor:
        return torch.cat(values, 1)


class WindowPool(nn.Module):
    """Mean or maximum over the valid pixels of a window, with SAME padding as in LiteRT.

    On even sizes at stride 2 its windows begin a pixel later than with symmetric padding.
    """

    def __init__(self, op: str, kernel: int, stride: int) -> None:
        super().__init__()
        self.op, self.kernel, self.stride = op, kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        later = [self.stride == 2 and size % 2 == 0 for size in x.shape[2:]]
        padding = [self.kernel // 2 - number for number in later]
        # With ceil_mode, windows that reach beyond the end count with their valid pixels.
        if self.op == "max":
            return F.max_pool2d(x, self.kernel, self.stride, padding, ceil_mode=True)
        return F.avg_pool2d(x, self.kernel, self.stride, padding, ceil_mode=True, count_include_pad=False)


def _conv(step: Step, arch: CellArch) -> nn.Module:
    activation: ActivationOrNone = arch.activation if step.relu else "none"
    shape = step.in_channels, step.channels, step.kernel, step.stride
    return ConvNorm(arch, *shape, activation=activation, dilation=step.dilation)


def _depthwise(step: Step, arch: CellArch) -> nn.Module:
    """Return a depthwise convolution without batch norm, which follows the next 1x1 convolution."""
    shape = step.channels, step.channels, step.kernel, step.stride
    return convolution(arch.padding, *shape, groups=step.channels, dilation=step.dilation)


MODULES: dict[str, Callable[[Step, CellArch], nn.Module]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "relu": lambda step, arch: nn.ReLU(),
    "average": lambda step, arch: WindowPool("average", step.kernel[0], step.stride[0]),
    "max": lambda step, arch: WindowPool("max", step.kernel[0], step.stride[0]),
    "shift": lambda step, arch: Shift(),
    "add": lambda step, arch: Add(),
    "concat": lambda step, arch: Concat(),
}
"""Op of a step -> function that builds its module."""
