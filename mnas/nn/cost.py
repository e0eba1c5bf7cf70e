"""Parameters and multiply-accumulates of an `Arch`, counted without making a tensor.

Counted are convolutions and the classifier, squeeze-and-excitation included; a batch norm has two parameters a channel
and no MACs (it folds into its convolution). Additions, activations, pools and gates are not counted, as in the paper.
"""

import itertools
from dataclasses import dataclass

from mnas.arch import Arch, Layer

Shape = tuple[int, int, int]
"""(channels, height, width)."""


@dataclass(frozen=True)
class CostRow:
    """What one convolution or classifier, or a whole layer of them, costs."""

    name: str
    """`stem`, `block3.1.depthwise`, `head`, `classifier`; of a whole layer `block3.1`."""
    op: str
    """`conv`, `depthwise`, `linear`; of a whole layer as `describe` has it."""
    input_shape: Shape
    output_shape: Shape
    params: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """The rows of a network in the order of computation."""

    rows: tuple[CostRow, ...]

    @property
    def params(self) -> int:
        """Parameters in all; batch norm's running statistics are none."""
        return sum(row.params for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return sum(row.macs for row in self.rows)


def cost(arch: Arch, input_size: int, num_classes: int = 1000) -> Cost:
    """Params and MACs of every convolution of `arch` on an `input_size` x `input_size` image.

    Raises:
        ValueError: the image is too small for the strides, or num_classes below 1.
    """
    arch.check_input_size(input_size)
    if num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more, but got {num_classes}")
    shape = (3, input_size, input_size)
    rows = [_conv("stem", shape, arch.stem_filters, 3, arch.stem_stride)]
    shape = rows[-1].output_shape
    for layer in arch.layers:
        rows += _layer_rows(layer, shape)
        shape = (layer.out_filters, -(-shape[1] // layer.stride), -(-shape[2] // layer.stride))
    rows.append(_conv("head", shape, arch.head_filters, 1))
    params = (arch.head_filters + 1) * num_classes
    inputs, outputs = (arch.head_filters, 1, 1), (num_classes, 1, 1)
    rows.append(CostRow("classifier", "linear", inputs, outputs, params, arch.head_filters * num_classes))
    return Cost(tuple(rows))


def by_layer(arch: Arch, whole: Cost) -> tuple[CostRow, ...]:
    """The rows of `whole`, the cost of `arch`, added up to one row for each stem, layer, head and classifier."""
    ops = {layer.name: describe(layer) for layer in arch.layers}
    merged = []
    for name, group in itertools.groupby(whole.rows, key=lambda row: ".".join(row.name.split(".")[:2])):
        rows = list(group)
        params, macs = sum(r.params for r in rows), sum(r.macs for r in rows)
        output = [row.output_shape for row in rows if ".se." not in row.name][-1]
        merged.append(CostRow(name, ops.get(name, rows[0].op), rows[0].input_shape, output, params, macs))
    return tuple(merged)


def describe(layer: Layer) -> str:
    """A layer in a few words: `mbconv6 k5 s2 se10 pool`, `se10` being squeezed channels; without a skip, no word."""
    expansion = str(layer.mid_filters // layer.in_filters) if layer.op == "mbconv" else ""
    words = [f"{layer.op}{expansion}", f"k{layer.kernel}"]
    words += [f"s{layer.stride}"] if layer.stride > 1 else []
    words += [f"se{layer.se_filters}"] if layer.se_filters else []
    words += [layer.skip] if layer.skip != "none" else []
    return " ".join(words)


def _conv(name: str, shape: Shape, filters: int, kernel: int, stride: int = 1, depthwise: bool = False) -> CostRow:
    """A convolution with batch norm; both paddings give ceil(size / stride)."""
    channels, height, width = shape
    output = (filters, -(-height // stride), -(-width // stride))
    weights = kernel * kernel * filters * (1 if depthwise else channels)
    op = "depthwise" if depthwise else "conv"
    return CostRow(name, op, shape, output, weights + 2 * filters, weights * output[1] * output[2])


def _se_rows(name: str, channels: int, squeezed: int) -> list[CostRow]:
    ends = [("reduce", channels, squeezed), ("expand", squeezed, channels)]
    return [CostRow(f"{name}.se.{end}", "conv", (i, 1, 1), (o, 1, 1), (i + 1) * o, i * o) for end, i, o in ends]


def _layer_rows(layer: Layer, shape: Shape) -> list[CostRow]:
    name = layer.name
    se = _se_rows(name, layer.se_channels, layer.se_filters) if layer.se_filters else []
    if layer.op == "conv":
        return [_conv(f"{name}.conv", shape, layer.out_filters, layer.kernel, layer.stride), *se]
    rows = []
    if layer.op == "mbconv":
        rows.append(_conv(f"{name}.expand", shape, layer.mid_filters, 1))
        shape = rows[-1].output_shape
    rows.append(_conv(f"{name}.depthwise", shape, layer.mid_filters, layer.kernel, layer.stride, depthwise=True))
    return [*rows, *se, _conv(f"{name}.project", rows[-1].output_shape, layer.out_filters, 1)]
