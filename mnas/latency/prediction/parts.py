"""A network as a predictor sees it: parts whose times add up to the network's time.

An architecture's parts are the operators of its LiteRT file. A network that is given only by its decisions (a row of a
published table of measurements) has its blocks as parts.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mnas.architecture import Architecture
from mnas.cell_arch import CellArch
from mnas.nn.cell_steps import Step, cell_steps
from mnas.nn.cost import Cost, CostRow, cost, step_shapes
from mnas.ops import Convolution, Mean, Residual, Shape, Visit
from mnas.tflite.graph import MOST_JOINED

VECTOR = 16
"""Maximum number of channels that a processor computes at once; some compute 4 or 8."""
Decisions = Mapping[str, str | int | float | bool]
"""Name of each decision -> choice, such as `block3_kernel: 5`."""
Place = tuple[float | str, ...]
_OPERATORS = {"hardswish": ("hardswish",), "silu": ("sigmoid", "multiply")}
"""Activation -> operators that compute it in a LiteRT file; ReLU and ReLU6 are fused."""


@dataclass(frozen=True)
class Part:
    """A part of a network; its time is about a sum of amounts, each times a rate that all parts of its kind share."""

    kind: str
    """Kind of the part, whose parts the same code computes; `network` is the whole's deviation from the sum."""
    amounts: Mapping[str, float]
    """Amounts of work by name, 0 or more; in millions, except `calls`."""
    place: Place
    """Position among parts of its kind, as near parts deviate alike: sizes in octaves; texts are equal or 1 apart."""


def parts_of_arch(arch: Architecture, input_size: int, num_classes: int) -> tuple[Part, ...]:
    """Return the operators of `arch` and the network; their `macs` add up to those of `mnas.nn.cost`, in millions.

    Raises:
        ValueError: the input is too small for the strides.
    """
    whole = cost(arch, input_size, num_classes)
    rows = {row.name: row for row in whole.rows}
    parts: list[Part] = []
    if isinstance(arch, CellArch):
        steps = cell_steps(arch)
        shapes = step_shapes(steps, (3, input_size, input_size))
        for step in steps:
            parts += _step_parts(step, rows, shapes)
        parts.append(_elementwise("mean", shapes[steps[-1].name]))
        depth = len(arch.skeleton.plan)
    else:
        for visit in arch.visit(input_size):
            parts += _visit_parts(visit, rows)
        depth = len(arch.layers)
    parts.append(_dense("classifier", [rows["classifier"]]))
    return (*parts, _network(whole, depth))


def parts_of_decisions(decisions: Decisions) -> tuple[Part, ...]:
    """Return the blocks of a network that is given by its decisions.

    The block of a decision is the start of its name: `block3` of `block3_kernel` and `block3.skip`. A decision whose
    name starts with no numbered word is a block of its own. Choices are distinguished, but have no order.
    """
    blocks: dict[str, list[str]] = {}
    for name in sorted(decisions):
        begin = re.match(r"[A-Za-z]+\d+(?=\W|_)", name)
        blocks.setdefault(begin[0] if begin else name, []).append(f"{name}={decisions[name]}")
    return tuple(Part(block, dict.fromkeys(choices, 1.0), tuple(choices)) for block, choices in blocks.items())


def _visit_parts(visit: Visit, rows: Mapping[str, CostRow]) -> list[Part]:
    """Return the parts of one part of a network of blocks."""
    part, output = visit.part, visit.output_shape
    if isinstance(part, Convolution):
        return [_convolution_part(visit, part, rows[visit.name]), *_activation_parts(part.activation, output)]
    if isinstance(part, Mean):
        return [_elementwise("mean", visit.input_shape)]
    if isinstance(part, Residual):
        return [_elementwise("add", output), *(_pool_parts(visit, part) if part.pooled else [])]
    ends = [rows[f"{visit.name}.{end}"] for end, _, _ in part.ends]
    inside = _activation_parts(part.activation, (part.squeezed, 1, 1))
    scale = "scale" if part.gate == "sigmoid" else "hard scale"
    return [_elementwise("mean", output), _dense("squeeze", ends), *inside, _elementwise(scale, output)]


def _convolution_part(visit: Visit, part: Convolution, row: CostRow) -> Part:
    if part.depthwise:
        return _depthwise(f"depthwise{part.kernel}", row, part.stride)
    if visit.input_shape[1:] == (1, 1) and visit.name == "head":
        return _dense("hidden", [row])
    kind = "stem" if visit.name == "stem" else "pointwise" if part.kernel == 1 else f"conv{part.kernel}"
    return _convolution(kind, row)


def _activation_parts(activation: str, shape: Shape) -> list[Part]:
    """Return the operators of an activation that the operator before it does not fuse."""
    return [_elementwise(kind, shape) for kind in _OPERATORS.get(activation, ())]


def _pool_parts(visit: Visit, part: Residual) -> list[Part]:
    pooled = (part.inputs, *visit.output_shape[1:])
    parts = [_elementwise("pool", pooled, _values(visit.input_shape), part.stride)]
    if part.inputs != part.outputs:
        parts.append(_elementwise("pad" if part.inputs < part.outputs else "slice", visit.output_shape))
    return parts


def _step_parts(step: Step, rows: Mapping[str, CostRow], shapes: Mapping[str, Shape]) -> list[Part]:
    """Return the parts of one step of a network of cells; kinds that blocks also have are the same."""
    output, size = shapes[step.name], step.kernel[0]
    dilated = "dilated " if step.dilation > 1 else ""
    if step.op == "conv":
        square = step.kernel[0] == step.kernel[1]
        kind = f"{dilated}conv{size}" if square else f"conv{step.kernel[0]}x{step.kernel[1]}"
        kind = "stem" if step.name == "stem.conv1" else "pointwise" if step.kernel == (1, 1) else kind
        return [_convolution(kind, rows[step.name])]
    if step.op == "depthwise":
        return [_depthwise(f"{dilated}depthwise{size}", rows[step.name], step.stride[0])]
    if step.op in ("average", "max"):
        kind = "pool" if step.op == "average" and size == 3 else f"{step.op}{size}"
        return [_elementwise(kind, output, _values(shapes[step.inputs[0]]), step.stride[0])]
    if step.op == "shift":
        return [_elementwise("slice", output), *([_elementwise("pad", output)] if output[1] % 2 else [])]
    if step.op == "concat":
        return _concat_parts([shapes[name] for name in step.inputs])
    return [_elementwise(step.op, output)]


def _concat_parts(shapes: list[Shape]) -> list[Part]:
    """Return the parts of `mnas.tflite.graph.Graph.concat`, where the first of many values are joined earlier."""
    parts = []
    joined = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    if len(shapes) > MOST_JOINED:
        parts = _concat_parts(shapes[: -MOST_JOINED + 1])
    return [*parts, _elementwise("concat", joined)]


def _convolution(kind: str, row: CostRow) -> Part:
    (inputs, *_), (outputs, height, width) = row.input_shape, row.output_shape
    macs = row.macs / 1e6
    amounts = {
        "macs": macs,
        "macs in vectors": macs * _in_vectors(outputs) / outputs,
        "values": _values(row.input_shape) + _values(row.output_shape),
        "weights": _weights(row),
        "calls": 1.0,
    }
    stride = round(math.log2(row.input_shape[1] / height))
    return Part(kind, amounts, (math.log2(inputs), math.log2(outputs), math.log2(height * width), float(stride)))


def _depthwise(kind: str, row: CostRow, stride: int) -> Part:
    channels, height, width = row.output_shape
    amounts = {
        "macs": row.macs / 1e6,
        "macs in vectors": row.macs / 1e6 * _in_vectors(channels) / channels,
        "inputs": _values(row.input_shape),
        "outputs": _values(row.output_shape),
        "calls": 1.0,
    }
    return Part(kind, amounts, (math.log2(channels), math.log2(height * width), float(stride)))


def _dense(kind: str, rows: list[CostRow]) -> Part:
    """Return the part of matrices times one vector each, where every weight is used once."""
    amounts = {"macs": sum(row.macs for row in rows) / 1e6, "calls": float(len(rows))}
    return Part(kind, amounts, (math.log2(rows[0].input_shape[0]), math.log2(rows[0].output_shape[0])))


def _elementwise(kind: str, shape: Shape, inputs: float = 0.0, stride: int = 1) -> Part:
    amounts = {"values": _values(shape), "inputs": inputs, "calls": 1.0}
    return Part(kind, amounts, (math.log2(shape[0]), math.log2(shape[1] * shape[2]), float(stride)))


def _network(whole: Cost, depth: int) -> Part:
    return Part("network", {}, (math.log2(whole.macs), math.log2(whole.params), math.log2(depth)))


def _in_vectors(channels: int) -> int:
    return -(-channels // VECTOR) * VECTOR


def _values(shape: Shape) -> float:
    return math.prod(shape) / 1e6


def _weights(row: CostRow) -> float:
    return row.macs / (row.output_shape[1] * row.output_shape[2]) / 1e6
