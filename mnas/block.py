"""A block of a network: a repeated layer, as a plain value.

Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile" (CVPR 2019, arXiv:1807.11626), section 4.1;
fields that the paper does not have come from MobileNetV1, MobileNetV3, MobileNetV4 and EfficientNet.
"""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from mnas.ops import MAX_EXPANSION, MIN_EXPANSION, OPS, Activation, Gate, Op, Skip, plain_number
from mnas.require import require_choice, require_int, require_number

BlockActivation = Literal["network", "relu", "relu6", "hardswish", "silu"]
SqueezedWidth = Literal["input", "middle"]

# These limits exceed every published network; they keep a typo from filling the memory.
MAX_FILTERS = 16384
MAX_LAYERS = 100


@dataclass(frozen=True, kw_only=True)
class Block:
    """A repeated layer; only its first repetition has the block's stride and changes the width.

    Raises ValueError if a field is out of range.
    """

    op: Op
    """Kind of layer, a row of `mnas.ops.OPS`: `conv` (k x k), `sepconv` (depthwise-separable), `mbconv` (mobile
    inverted bottleneck), `fused` (one whose k x k convolution also expands) or `uib` (universal inverted
    bottleneck)."""
    kernel: int
    """Side of the (depthwise) kernel: 3, 5 or 7; for a `conv` also 1; 0 for a `uib` without middle depthwise."""
    stride: int
    """Stride of the first layer: 1 or 2."""
    filters: int
    """Output channels of every layer."""
    layers: int = 1
    """Number of layers."""
    expansion: float = 1
    """Channels inside an `mbconv`, `fused` or `uib`, as a multiple of its input channels; 1 for the other ops. The
    product with a fraction is rounded to a multiple of 8 (`round_filters`)."""
    se_ratio: float = 0.0
    """Squeeze-and-excitation width as a share of the channels that `se_width` names; 0 disables it."""
    skip: Skip = "identity"
    """Addend of a layer's output: its input where shapes agree, a 3x3 average pool of the input, or nothing."""
    mid_filters: int = 0
    """Channels inside every layer, in place of an expansion; 0: those of the expansion."""
    start_kernel: int = 0
    """Side of the depthwise kernel of a `uib` before its expansion; 0 without one."""
    activation: BlockActivation = "network"
    """Activation of the block's layers; `network`: the architecture's."""
    projection_activation: bool = False
    """Whether an activation follows the projection too, as in MobileNetV1."""
    se_width: SqueezedWidth = "input"
    """Channels that `se_ratio` refers to: the layer's `input`, as in MnasNet and EfficientNet, or those in its
    `middle`, then rounded to a multiple of 8, as in MobileNetV3."""
    se_activation: Activation = "relu"
    """Activation between both convolutions of squeeze-and-excitation."""
    se_gate: Gate = "sigmoid"
    """Gate of squeeze-and-excitation."""

    def __post_init__(self) -> None:
        require_choice("op", self.op, tuple(OPS))
        row = OPS[self.op]
        _require_for_op("kernel", self.op, self.kernel, row.kernels)
        _require_for_op("start_kernel", self.op, self.start_kernel, row.start_kernels)
        require_choice("stride", self.stride, (1, 2))
        require_int("filters", self.filters, 1, MAX_FILTERS)
        require_int("layers", self.layers, 1, MAX_LAYERS)
        require_number("expansion", self.expansion, MIN_EXPANSION, MAX_EXPANSION)
        require_number("se_ratio", self.se_ratio, 0, 1)
        require_choice("skip", self.skip, get_args(Skip))
        require_int("mid_filters", self.mid_filters, 0, MAX_FILTERS)
        require_choice("activation", self.activation, get_args(BlockActivation))
        require_choice("projection_activation", self.projection_activation, (False, True))
        require_choice("se_width", self.se_width, get_args(SqueezedWidth))
        require_choice("se_activation", self.se_activation, get_args(Activation))
        require_choice("se_gate", self.se_gate, get_args(Gate))
        if not row.expands and (self.expansion != 1 or self.mid_filters):
            name = "expansion" if self.expansion != 1 else "mid_filters"
            rule = "1" if self.expansion != 1 else "0"
            raise ValueError(f"{name} must be {rule} for op {self.op}, but got {getattr(self, name)}")
        if self.mid_filters and self.expansion != 1:
            raise ValueError(f"expansion must be 1 where mid_filters is given, but got {self.expansion}")
        if self.projection_activation and not row.projects:
            raise ValueError(f"projection_activation must be false for op {self.op}, which has no projection")
        # 0 and 0.0, 4 and 4.0 must give the same JSON and hash
        object.__setattr__(self, "se_ratio", float(self.se_ratio))
        object.__setattr__(self, "expansion", plain_number(self.expansion))

    def inside(self, in_filters: int) -> int:
        """Return the channels inside a layer with `in_filters` input channels."""
        if self.mid_filters:
            return self.mid_filters
        if isinstance(self.expansion, int):
            return in_filters * self.expansion
        return round_filters(in_filters, self.expansion)

    def squeezed(self, in_filters: int) -> int:
        """Return the squeezed channels of a layer with `in_filters` input channels, 0 without squeeze-and-excitation.

        As in the published code, the ratio is relative to the layer's input by default, not to its expansion.
        """
        if self.se_ratio == 0:
            return 0
        if self.se_width == "input":
            return max(1, int(in_filters * self.se_ratio))
        width = self.filters if self.op == "conv" else self.inside(in_filters)
        return round_filters(width, self.se_ratio)


LATER: dict[str, Any] = {field.name: field.default for field in fields(Block)[8:]}
"""Fields of a block that came after the first files, which contain them only if they differ from these defaults."""


def round_filters(filters: int, multiplier: float) -> int:
    """Return `filters` scaled by the published rounding rule; a multiplier of 1.0 changes nothing.

    The result is the nearest multiple of 8 and at least 8; 8 more if rounding would lose over 10 %.
    """
    if multiplier == 1.0:
        return filters
    scaled = filters * multiplier
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _require_for_op(name: str, op: Op, value: object, choices: Sequence[int]) -> None:
    """Raise ValueError unless `value` is one of `choices`, those of the op."""
    if type(value) is not int or value not in choices:
        listed = ", ".join(map(str, choices))
        rule = f"one of {listed}" if len(choices) > 1 else listed
        raise ValueError(f"{name} must be {rule} for op {op}, but got {reprlib.repr(value)}")
