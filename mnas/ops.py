"""Table of ops: each row describes one op of a block, from which everything about a layer follows.

A row gives the parts of a layer in order of computation. Networks, costs, LiteRT files, latency predictors, diagrams
and the names of foreign weights are built from these parts, so a new op is a new row (CONTRIBUTING.md, "Add a block").
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, cast

Op = Literal["conv", "sepconv", "mbconv", "fused"]
Skip = Literal["identity", "pool", "none"]
Shape = tuple[int, int, int]
"""Shape (channels, height, width)."""
Colours = tuple[str, str]
"""Fill and border of a box in a diagram, light enough for dark text."""

MAX_EXPANSION = 32
ORANGE: Colours = ("#fde3c8", "#e8954a")
GREEN: Colours = ("#d3f0dc", "#4cae6e")
BLUE: Colours = ("#d6e6fb", "#5a93d8")
PURPLE: Colours = ("#ddd3f5", "#8663c7")
YELLOW: Colours = ("#fbf0bf", "#c9a31f")
ROSE: Colours = ("#fadadd", "#d0707c")


@dataclass(frozen=True)
class Convolution:
    """A square convolution with batch norm, then the network's activation, unless the result is linear."""

    name: str
    """Name within the layer; also the name of its weights in the network and in the LiteRT file."""
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    """Whether each channel has its own kernel; inputs and outputs are then equal."""
    linear: bool = False
    timm: str = ""
    """Name of its weights in a block of timm's; timm numbers the batch norms of a block as `bn1`, `bn2`, ..."""

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
    """Squeeze-and-excitation: mean, 1x1 to `squeezed` with bias, ReLU, 1x1 back with bias, sigmoid, product."""

    channels: int
    squeezed: int
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


LayerPart: TypeAlias = Convolution | Squeeze | Residual


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer with all widths derived; networks, costs, LiteRT files and diagrams are built from it."""

    name: str
    """Name such as `block3.1`, the second layer of the third block (blocks count from 1, layers from 0)."""
    op: Op
    kernel: int
    stride: int
    in_filters: int
    mid_filters: int
    """Channels inside the layer: in_filters times the expansion. Unused by `conv`."""
    out_filters: int
    se_filters: int
    """Squeezed channels; 0 without squeeze-and-excitation."""
    skip: Skip
    """Effective skip: `identity` only where the stride is 1 and the widths agree."""

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
    """Name such as `stem`, `block3.1.depthwise`, `block3.1.se`, `block3.1.add` or `head`."""
    layer: str
    """Name of its layer: `stem`, `block3.1` or `head`."""
    part: LayerPart
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
    expansion_1: str = ""
    """Op that has the same layers with an expansion of 1; empty if the op has no expansion."""
    flag: str = ""
    """Part of a block string that names the op; empty for an op that its expansion identifies."""

    @property
    def expands(self) -> bool:
        """Whether a block of this op has an expansion, of 2 to `MAX_EXPANSION`."""
        return bool(self.expansion_1)


def _squeezed(layer: Layer, channels: int) -> tuple[Squeeze, ...]:
    return (Squeeze(channels, layer.se_filters),) if layer.se_filters else ()


def _conv(layer: Layer) -> tuple[LayerPart, ...]:
    return (
        Convolution("conv", layer.in_filters, layer.out_filters, layer.kernel, layer.stride, timm="conv"),
        *_squeezed(layer, layer.out_filters),
    )


def _sepconv(layer: Layer) -> tuple[LayerPart, ...]:
    width = layer.in_filters
    return (
        Convolution("depthwise", width, width, layer.kernel, layer.stride, depthwise=True, timm="conv_dw"),
        *_squeezed(layer, width),
        Convolution("project", width, layer.out_filters, linear=True, timm="conv_pw"),
    )


def _mbconv(layer: Layer) -> tuple[LayerPart, ...]:
    width = layer.mid_filters
    return (
        Convolution("expand", layer.in_filters, width, timm="conv_pw"),
        Convolution("depthwise", width, width, layer.kernel, layer.stride, depthwise=True, timm="conv_dw"),
        *_squeezed(layer, width),
        Convolution("project", width, layer.out_filters, linear=True, timm="conv_pwl"),
    )


def _fused(layer: Layer) -> tuple[LayerPart, ...]:
    """Return the parts of a fused MBConv (EfficientNet-EdgeTPU, EfficientNetV2), which with expansion 1 is a `conv`."""
    width = layer.mid_filters
    return (
        Convolution("expand", layer.in_filters, width, layer.kernel, layer.stride, timm="conv_exp"),
        *_squeezed(layer, width),
        Convolution("project", width, layer.out_filters, linear=True, timm="conv_pwl"),
    )


OPS: dict[Op, OpRow] = {
    "conv": OpRow(title="Conv", colours=(ORANGE, ORANGE), parts=_conv, flag="conv"),
    "sepconv": OpRow(title="SepConv", colours=(GREEN, GREEN), parts=_sepconv),
    "mbconv": OpRow(title="MBConv", colours=(BLUE, PURPLE), parts=_mbconv, expansion_1="sepconv"),
    "fused": OpRow(title="Fused", colours=(YELLOW, ROSE), parts=_fused, expansion_1="conv", flag="fused"),
}
"""Op -> its row."""


def op_text(op: Op, expansion: int) -> str:
    """Return the name of an op with its expansion: `mbconv6`, or `sepconv` for an op that has none."""
    return f"{op}{expansion}" if OPS[op].expands else op


def parse_op(text: str) -> tuple[Op, int]:
    """Return op and expansion: (`mbconv`, 6) for `mbconv6`, (`sepconv`, 1) for `sepconv`.

    Raises ValueError for a text that `op_text` never returns.
    """
    match = re.fullmatch(r"([a-z]+)([1-9]\d?)?", text, re.ASCII)
    row = OPS.get(cast(Op, match[1])) if match else None
    if match and row and row.expands == bool(match[2]) and (not match[2] or 2 <= int(match[2]) <= MAX_EXPANSION):
        return cast(Op, match[1]), int(match[2] or 1)
    raise ValueError(f"op must be {op_names()} with an expansion N from 2 to {MAX_EXPANSION}, but got {text!r}")


def op_names() -> str:
    """Return the list of ops for a message: `conv, sepconv or mbconvN`."""
    *first, last = (f"{name}N" if row.expands else name for name, row in OPS.items())
    return f"{', '.join(first)} or {last}"


def flagged_op(flags: set[str], expansion: int) -> Op:
    """Return the op of a block string with these flags, at most one of which is an op's, and this expansion."""
    for name, row in OPS.items():
        if row.flag in flags or (not row.flag and flags.isdisjoint(OP_FLAGS) and row.expands == (expansion > 1)):
            return name
    raise AssertionError(flags)


OP_FLAGS = tuple(row.flag for row in OPS.values() if row.flag)
"""Parts of block strings that name an op."""
