"""Parameters and multiply-accumulates of an architecture, counted without building a network.

The count covers convolutions, squeeze-and-excitation and the classifier. A batch norm has two parameters per channel
and no MACs (it folds into its convolution). As in the paper, additions, activations, pools and gates do not count.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.cell_arch import CellArch
from mnas.nn.cell_steps import IMAGE, Step, cell_steps
from mnas.ops import Convolution, Layer, Shape, Squeeze, Visit, op_text, plain_number


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
    rows, features = _cell_rows(arch, input_size) if isinstance(arch, CellArch) else _block_rows(arch, input_size)
    params, inputs, outputs = (features + 1) * num_classes, (features, 1, 1), (num_classes, 1, 1)
    return Cost((*rows, CostRow("classifier", "linear", inputs, outputs, params, features * num_classes)))


def by_layer(arch: Architecture, whole: Cost) -> tuple[CostRow, ...]:
    """Return the rows of `whole`, the cost of `arch`, summed by stem, layer or cell, head and classifier."""
    if isinstance(arch, CellArch):
        return _by_cell(arch, whole)
    return merged_rows(whole, {layer.name: describe(layer) for layer in arch.layers})


def merged_rows(whole: Cost, ops: Mapping[str, str]) -> tuple[CostRow, ...]:
    """Return the rows of `whole` summed by the first two parts of their names, with the texts of `ops` (name -> op)."""
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


def _block_rows(arch: Arch, input_size: int) -> tuple[list[CostRow], int]:
    """Return all rows except the classifier's, and the classifier's number of inputs."""
    return [row for visit in arch.visit(input_size) for row in part_rows(visit)], arch.features


def part_rows(visit: Visit) -> list[CostRow]:
    """Return the cost of a part with weights, in one row or, for squeeze-and-excitation, two."""
    part, output = visit.part, visit.output_shape
    if isinstance(part, Convolution):
        op, weights = "depthwise" if part.depthwise else "conv", part.weights
        params, macs = weights + (2 if part.norm else 1) * part.outputs, weights * output[1] * output[2]
        return [CostRow(visit.name, op, visit.input_shape, output, params, macs)]
    if isinstance(part, Squeeze):
        return [
            CostRow(f"{visit.name}.{end}", "conv", (i, 1, 1), (o, 1, 1), (i + 1) * o, i * o) for end, i, o in part.ends
        ]
    return []


def _cell_rows(arch: CellArch, input_size: int) -> tuple[list[CostRow], int]:
    """Return the same as `_block_rows`; a depthwise convolution in a cell has no batch norm."""
    steps = cell_steps(arch)
    shapes = step_shapes(steps, (3, input_size, input_size))
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
    words = [_op_words(layer), *([f"a{layer.start_kernel}"] if layer.start_kernel else []), f"k{layer.kernel}"]
    words += [f"s{layer.stride}"] if layer.stride > 1 else []
    words += [f"se{layer.se_filters}"] if layer.se_filters else []
    words += [layer.skip] if layer.skip != "none" else []
    return " ".join(words)


def _op_words(layer: Layer) -> str:
    """Return op and expansion, to two digits where it is a fraction."""
    share = layer.mid_filters / layer.in_filters
    return op_text(layer.op, plain_number(round(share, 2)))
