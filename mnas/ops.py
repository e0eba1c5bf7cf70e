"""Table of ops: each row describes one op of a block, from which everything about a layer follows.

A row gives the parts of a layer in order of computation. Networks, costs, LiteRT files, latency predictors, diagrams
and the names of foreign weights are built from these parts, so a new op is a new row (CONTRIBUTING.md, "Add a block").
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, cast

Op = Literal["conv", "sepconv", "mbconv", "fused", "uib"]
Activation = Literal["relu", "relu6", "hardswish", "silu"]
ActivationOrNone = Literal["none", "relu", "relu6", "hardswish", "silu"]
Gate = Literal["sigmoid", "hardsigmoid"]
Skip = Literal["identity", "pool", "none"]
Shape = tuple[int, int, int]
"""Shape (channels, height, width)."""
Colours = tuple[str, str]
"""Fill and border of a box in a diagram, light enough for dark text."""

KERNELS = (3, 5, 7)
MIN_EXPANSION = 0.25
MAX_EXPANSION = 32
ORANGE: Colours = ("#fde3c8", "#e8954a")
GREEN: Colours = ("#d3f0dc", "#4cae6e")
BLUE: Colours = ("#d6e6fb", "#5a93d8")
PURPLE: Colours = ("#ddd3f5", "#8663c7")
YELLOW: Colours = ("#fbf0bf", "#c9a31f")
ROSE: Colours = ("#fadadd", "#d0707c")
TEAL: Colours = ("#cdeeee", "#3f9f9f")
SAND: Colours = ("#e6dccb", "#a08355")


@dataclass(frozen=True)
class Convolution:
    """A square convolution with batch norm or bias, then an activation, unless the result is linear."""

    name: str
    """Name within the layer; also the name of its weights in the network and in the LiteRT file."""
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    """Whether each channel has its own kernel; inputs and outputs are then equal."""
    activation: ActivationOrNone = "none"
    norm: bool = True
    """Whether a batch norm follows; otherwise the convolution has a bias."""
    timm: str = ""
    """Name of its weights in a block of timm's; timm numbers the batch norms of a block as `bn1`, `bn2`, ..., but the
    batch norm of `dw_start.conv` is `dw_start.bn`."""

    @property
    def linear(self) -> bool:
        """Whether no activation follows."""
        return self.activation == "none"

    @property
    def groups(self) -> int:
        return self.inputs if self.depthwise else 1

    @property
    def weights(self) -> int:
        """Number of weights, which is also the number of multiply-accumulates per output pixel."""
        return self.kernel * self.kernel * self.outputs * (1 if self.depthwise else self.inputs)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the result for an input of `shape`; both paddings give ceil(size / stride)."""
        return self.outputs, -(-shape[1] // self.stride), -(-shape[2] // self.stride)


@dataclass(frozen=True)
class Squeeze:
    """Squeeze-and-excitation: mean, 1x1 to `squeezed` with bias, activation, 1x1 back with bias, gate, product."""

    channels: int
    squeezed: int
    activation: Activation = "relu"
    gate: Gate = "sigmoid"
    name: str = "se"

    @property
    def ends(self) -> tuple[tuple[str, int, int], tuple[str, int, int]]:
        """Name, inputs and outputs of both 1x1 convolutions."""
        return ("reduce", self.channels, self.squeezed), ("expand", self.squeezed, self.channels)

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True)
class Residual:
    """The sum of the result so far and the layer's input: the input itself, or its pool at the layer's stride."""

    pooled: bool
    inputs: int
    outputs: int
    stride: int
    name: str = "add"

    def output_shape(self, shape: Shape) -> Shape:
        return self.outputs, -(-shape[1] // self.stride), -(-shape[2] // self.stride)


@dataclass(frozen=True)
class Mean:
    """The mean over all pixels."""

    name: str = "mean"

    def output_shape(self, shape: Shape) -> Shape:
        return shape[0], 1, 1


LayerPart: TypeAlias = Convolution | Squeeze | Residual
NetworkPart: TypeAlias = LayerPart | Mean


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer with all widths derived; networks, costs, LiteRT files and diagrams are built from it."""

    name: str
    """Name such as `block3.1`, the second layer of the third block (blocks count from 1, layers from 0)."""
    op: Op
    kernel: int
    """Side of the (middle depthwise) kernel; 0 for a `uib` without one."""
    stride: int
    in_filters: int
    mid_filters: int
    """Channels inside the layer. Unused by `conv`."""
    out_filters: int
    se_filters: int
    """Squeezed channels; 0 without squeeze-and-excitation."""
    skip: Skip
    """Effective skip: `identity` only where the stride is 1 and the widths agree."""
    start_kernel: int = 0
    """Side of the depthwise kernel before the expansion; 0 without one."""
    activation: Activation = "relu"
    projection_activation: bool = False
    """Whether an activation follows the projection too."""
    se_activation: Activation = "relu"
    se_gate: Gate = "sigmoid"

    @functools.cached_property
    def parts(self) -> tuple[LayerPart, ...]:
        """Parts in order of computation, each with its widths."""
        parts = OPS[self.op].parts(self)
        if self.skip == "none":
            return parts
        return (*parts, Residual(self.skip == "pool", self.in_filters, self.out_filters, self.stride))

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Convolutions with batch norm, in order of computation."""
        return tuple(part for part in self.parts if isinstance(part, Convolution))


class Visit(NamedTuple):
    """A part of a network at its place."""

    name: str
    """Name such as `stem`, `block3.1.depthwise`, `block3.1.se`, `block3.1.add`, `head` or `head.mean`."""
    layer: str
    """Name of its layer: `stem`, `block3.1` or `head`."""
    part: NetworkPart
    source: str
    """Name of the part whose result enters it, empty for the image; for a residual, the part before the layer."""
    input_shape: Shape
    """Shape of the result of `source`."""
    output_shape: Shape


@dataclass(frozen=True, kw_only=True)
class OpRow:
    """All that distinguishes one op from the others."""

    title: str
    """Name in a diagram, before the expansion."""
    colours: tuple[Colours, Colours]
    """Colours in a diagram: up to an expansion of 4, and above."""
    parts: Callable[[Layer], tuple[LayerPart, ...]]
    """Function from a layer to its parts in order of computation, without the residual."""
    expands: bool = False
    """Whether a block of this op has channels inside that its expansion or `mid_filters` determines."""
    kernels: tuple[int, ...] = KERNELS
    """Sides of the kernel that the op may have; 0 means that the convolution is left out."""
    start_kernels: tuple[int, ...] = (0,)
    """Sides of a depthwise kernel before the expansion; 0 means none."""
    projects: bool = True
    """Whether the op ends with a projection, a linear 1x1 convolution that may get an activation."""


def _squeezed(layer: Layer, channels: int) -> tuple[Squeeze, ...]:
    return (Squeeze(channels, layer.se_filters, layer.se_activation, layer.se_gate),) if layer.se_filters else ()


def _conv(layer: Layer) -> tuple[LayerPart, ...]:
    shape = layer.in_filters, layer.out_filters, layer.kernel, layer.stride
    return (
        Convolution("conv", *shape, activation=layer.activation, timm="conv"),
        *_squeezed(layer, layer.out_filters),
    )


def _sepconv(layer: Layer) -> tuple[LayerPart, ...]:
    width = layer.in_filters
    return (
        _depthwise("depthwise", layer, width, timm="conv_dw"),
        *_squeezed(layer, width),
        _projection(layer, width, timm="conv_pw"),
    )


def _mbconv(layer: Layer) -> tuple[LayerPart, ...]:
    width = layer.mid_filters
    return (
        Convolution("expand", layer.in_filters, width, activation=layer.activation, timm="conv_pw"),
        _depthwise("depthwise", layer, width, timm="conv_dw"),
        *_squeezed(layer, width),
        _projection(layer, width, timm="conv_pwl"),
    )


def _fused(layer: Layer) -> tuple[LayerPart, ...]:
    """Return the parts of a fused MBConv (EfficientNet-EdgeTPU, EfficientNetV2)."""
    shape = layer.in_filters, layer.mid_filters, layer.kernel, layer.stride
    return (
        Convolution("expand", *shape, activation=layer.activation, timm="conv_exp"),
        *_squeezed(layer, layer.mid_filters),
        _projection(layer, layer.mid_filters, timm="conv_pwl"),
    )


def _uib(layer: Layer) -> tuple[LayerPart, ...]:
    """Return the parts of a universal inverted bottleneck (Qin et al., MobileNetV4, arXiv:2404.10518, section 3).

    The stride is in the middle depthwise convolution, without that in the first one, and without both in the expansion.
    """
    width = layer.mid_filters
    parts: list[LayerPart] = []
    if layer.start_kernel:
        stride = 1 if layer.kernel else layer.stride
        shape = layer.in_filters, layer.in_filters, layer.start_kernel, stride
        parts.append(Convolution("start", *shape, depthwise=True, timm="dw_start.conv"))
    stride = 1 if layer.kernel or layer.start_kernel else layer.stride
    expand = layer.in_filters, width, 1, stride
    parts.append(Convolution("expand", *expand, activation=layer.activation, timm="pw_exp.conv"))
    if layer.kernel:
        parts.append(_depthwise("depthwise", layer, width, timm="dw_mid.conv"))
    return (*parts, *_squeezed(layer, width), _projection(layer, width, timm="pw_proj.conv"))


def _depthwise(name: str, layer: Layer, width: int, timm: str) -> Convolution:
    shape = width, width, layer.kernel, layer.stride
    return Convolution(name, *shape, depthwise=True, activation=layer.activation, timm=timm)


def _projection(layer: Layer, width: int, timm: str) -> Convolution:
    activation: ActivationOrNone = layer.activation if layer.projection_activation else "none"
    return Convolution("project", width, layer.out_filters, activation=activation, timm=timm)


OPS: dict[Op, OpRow] = {
    "conv": OpRow(title="Conv", colours=(ORANGE, ORANGE), parts=_conv, kernels=(1, *KERNELS), projects=False),
    "sepconv": OpRow(title="SepConv", colours=(GREEN, GREEN), parts=_sepconv),
    "mbconv": OpRow(title="MBConv", colours=(BLUE, PURPLE), parts=_mbconv, expands=True),
    "fused": OpRow(title="Fused", colours=(YELLOW, ROSE), parts=_fused, expands=True),
    "uib": OpRow(
        title="UIB",
        colours=(TEAL, SAND),
        parts=_uib,
        expands=True,
        kernels=(0, *KERNELS),
        start_kernels=(0, *KERNELS),
    ),
}
"""Op -> its row."""


def op_text(op: Op, expansion: float) -> str:
    """Return the name of an op with its expansion: `mbconv6`, `mbconv4.5`, or `sepconv` for an op that has none."""
    return f"{op}{expansion!r}" if OPS[op].expands else op


def parse_op(text: str) -> tuple[Op, float]:
    """Return op and expansion: (`mbconv`, 6) for `mbconv6`, (`sepconv`, 1) for `sepconv`.

    Raises ValueError for a text that `op_text` never returns.
    """
    match = re.fullmatch(r"([a-z]+)(\d{1,2}(?:\.\d{1,3})?)?", text, re.ASCII)
    row = OPS.get(cast(Op, match[1])) if match else None
    if match and row and row.expands == bool(match[2]):
        op, expansion = cast(Op, match[1]), plain_number(float(match[2] or 1))
        if MIN_EXPANSION <= expansion <= MAX_EXPANSION and op_text(op, expansion) == text:
            return op, expansion
    expansion_range = f"{MIN_EXPANSION} to {MAX_EXPANSION}, as in uib2.5"
    raise ValueError(f"op must be {op_names()} with an expansion N from {expansion_range}, but got {text!r}")


def plain_number(number: float) -> float:
    """Return the number as an int if it is whole, so that 4 and 4.0 give the same text and the same JSON."""
    return int(number) if number == int(number) else float(number)


def op_names() -> str:
    """Return the list of ops for a message: `conv, sepconv or mbconvN`."""
    *first, last = (f"{name}N" if row.expands else name for name, row in OPS.items())
    return f"{', '.join(first)} or {last}"


def implied_op(expansion: float, mid_filters: int) -> Op:
    """Return the op of a block string that names none: `sepconv` without expansion, else `mbconv`."""
    return "mbconv" if mid_filters or expansion != 1 else "sepconv"
