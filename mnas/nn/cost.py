"""Parameters and multiply-accumulates of an architecture, counted without building a network.

The count covers convolutions, squeeze-and-excitation and the classifier. A batch norm has two parameters per channel
and no MACs (it folds into its convolution). As in the paper, additions, activations, pools and gates do not count.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mnas.arch import Arch, Layer
from mnas.architecture import Architecture
from mnas.cell_arch import CellArch
from mnas.nn.cell_steps import IMAGE, Step, cell_steps

Shape = tuple[int, int, int]
"""Shape (channels, height, width)."""


@dataclass(frozen=True)
class CostRow:
    """The cost of one convolution or classifier, or of a whole layer."""

    name: str
    """Name, such as `stem`, `block3.1.depthwise` or `cell2.pair1.left.conv`; `block3.1` for a whole layer."""
    op: str
    """Op: `conv`, `depthwise` or `linear`; the text of `describe` for a layer, kind and filters for a cell."""
    input_shape: Shape
    output_shape: Shape
    params: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """Costs of a network, by row in the order of computation."""

    rows: tuple[CostRow, ...]

    @property
    def params(self) -> int:
        """Total number of parameters, without batch norm's running statistics."""
        return sum(row.params for row in self.rows)

    @property
    def macs(self) -> int:
        """Total multiply-accumulates for one image."""
        return sum(row.macs for row in self.rows)


def cost(arch: Architecture, input_size: int, num_classes: int = 1000) -> Cost:
    """Return params and MACs of every convolution of `arch` for an `input_size` x `input_size` image.

    Raises:
        ValueError: the image is too small for the strides, or num_classes is below 1.
    """
    arch.check_input_size(input_size)
    if num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more, but got {num_classes}")
    image = (3, input_size, input_size)
    rows, features = _cell_rows(arch, image) if isinstance(arch, CellArch) else _block_rows(arch, image)
    params, inputs, outputs = (features + 1) * num_classes, (features, 1, 1), (num_classes, 1, 1)
    return Cost((*rows, CostRow("classifier", "linear", inputs, outputs, params, features * num_classes)))


def by_layer(arch: Architecture, whole: Cost) -> tuple[CostRow, ...]:
    """Return the rows of `whole`, the cost of `arch`, summed by stem, layer or cell, head and classifier."""
    if isinstance(arch, CellArch):
        return _by_cell(arch, whole)
    ops = {layer.name: describe(layer) for layer in arch.layers}
    merged = []
    for name, rows in _groups(whole, 2):
        params, macs = sum(r.params for r in rows), sum(r.macs for r in rows)
        output = [row.output_shape for row in rows if ".se." not in row.name][-1]
        merged.append(CostRow(name, ops.get(name, rows[0].op), rows[0].input_shape, output, params, macs))
    return tuple(merged)


def step_shapes(steps: Iterable[Step], image: Shape) -> dict[str, Shape]:
    """Return the shape of every step's result by name; SAME padding gives ceil(size / stride)."""
    shapes = {IMAGE: image}
    for step in steps:
        _, height, width = shapes[step.inputs[0]]
        shapes[step.name] = (step.channels, -(-height // step.stride[0]), -(-width // step.stride[1]))
    return shapes


def _groups(whole: Cost, parts: int) -> Iterator[tuple[str, list[CostRow]]]:
    """Yield each prefix of `parts` parts of a name, with the rows that share it."""
    for name, group in itertools.groupby(whole.rows, key=lambda row: ".".join(row.name.split(".")[:parts])):
        yield name, list(group)


def _by_cell(arch: CellArch, whole: Cost) -> tuple[CostRow, ...]:
    steps = cell_steps(arch)
    shapes = step_shapes(steps, whole.rows[0].input_shape)
    # A cell's output is its last step, not counting the ReLU and shift with which the next cells begin.
    outputs = {step.name.split(".")[0]: shapes[step.name] for step in steps if step.op not in ("relu", "shift")}
    kinds = {f"cell{number}": f"{kind} {filters}" for number, (kind, filters) in enumerate(arch.skeleton.plan, 1)}
    merged = []
    for name, rows in _groups(whole, 1):
        params, macs = sum(r.params for r in rows), sum(r.macs for r in rows)
        output = outputs.get(name, rows[-1].output_shape)
        merged.append(CostRow(name, kinds.get(name, rows[0].op), rows[0].input_shape, output, params, macs))
    return tuple(merged)


def _block_rows(arch: Arch, shape: Shape) -> tuple[list[CostRow], int]:
    """Return all rows except the classifier's, and the classifier's number of inputs."""
    rows = [_conv("stem", shape, arch.stem_filters, 3, arch.stem_stride)]
    shape = rows[-1].output_shape
    for layer in arch.layers:
        rows += _layer_rows(layer, shape)
        shape = (layer.out_filters, -(-shape[1] // layer.stride), -(-shape[2] // layer.stride))
    rows.append(_conv("head", shape, arch.head_filters, 1))
    return rows, arch.head_filters


def _cell_rows(arch: CellArch, image: Shape) -> tuple[list[CostRow], int]:
    """Return the same as `_block_rows`; a depthwise convolution in a cell has no batch norm."""
    steps = cell_steps(arch)
    shapes = step_shapes(steps, image)
    rows = []
    for step in steps:
        if step.op in ("conv", "depthwise"):
            shape, output = shapes[step.inputs[0]], shapes[step.name]
            weights = math.prod(step.kernel) * step.channels * (1 if step.op == "depthwise" else step.in_channels)
            params = weights + (2 * step.channels if step.op == "conv" else 0)
            rows.append(CostRow(step.name, step.op, shape, output, params, weights * output[1] * output[2]))
    return rows, steps[-1].channels


def describe(layer: Layer) -> str:
    """Return a short description of a layer, such as `mbconv6 k5 s2 se10 pool`; `se10` are its squeezed channels."""
    expansion = str(layer.mid_filters // layer.in_filters) if layer.op == "mbconv" else ""
    words = [f"{layer.op}{expansion}", f"k{layer.kernel}"]
    words += [f"s{layer.stride}"] if layer.stride > 1 else []
    words += [f"se{layer.se_filters}"] if layer.se_filters else []
    words += [layer.skip] if layer.skip != "none" else []
    return " ".join(words)


def _conv(name: str, shape: Shape, filters: int, kernel: int, stride: int = 1, depthwise: bool = False) -> CostRow:
    """Return the row of a convolution with batch norm; both paddings give ceil(size / stride)."""
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
