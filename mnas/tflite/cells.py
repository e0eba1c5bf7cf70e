"""The steps of a network of cells as operators of a LiteRT graph.

Each step is one operator, except for the shift of a factorized reduction: SLICE, and on odd sizes PAD.
"""

import numpy as np

from mnas.cell_arch import CellArch
from mnas.nn.cell_steps import IMAGE, Step, cell_steps
from mnas.tflite.graph import Fused, Graph, Value
from mnas.tflite.source import Kernel, Source


def add_cells(graph: Graph, arch: CellArch, weights: Source, image: Value) -> Value:
    """Add all steps of `arch` to `graph` and return the value of the last one."""
    values = {IMAGE: image}
    for step in cell_steps(arch):
        values[step.name] = _add(graph, step, [values[name] for name in step.inputs], weights)
    return values[step.name]


def _add(graph: Graph, step: Step, inputs: list[Value], weights: Source) -> Value:
    name, x = step.name, inputs[0]
    if step.op == "relu":
        return graph.relu(name, x)
    if step.op == "add":
        return graph.add(name, x, inputs[1])
    if step.op == "concat":
        return graph.concat(name, inputs)
    if step.op == "shift":
        return _shifted(graph, name, x)
    size, stride = step.kernel[0], step.stride[0]
    if step.op == "average":
        return graph.average_pool(name, x, kernel=size, stride=stride, padding="same")
    if step.op == "max":
        return graph.max_pool(name, x, kernel=size, stride=stride, padding="same")
    fused: Fused = "relu" if step.relu else "none"
    shape = (1, *step.kernel, step.channels) if step.op == "depthwise" else (step.channels, *step.kernel, x.channels)
    wanted = Kernel(name, shape, depthwise=step.op == "depthwise", combines=name.endswith((".project", ".pointwise")))
    kernel, bias = constants(graph, weights, wanted)
    if step.op == "depthwise":
        return graph.depthwise(
            name, x, kernel, bias, stride=stride, padding="same", fused=fused, dilation=step.dilation
        )
    return graph.conv(name, x, kernel, bias, stride=step.stride, padding="same", fused=fused, dilation=step.dilation)


def constants(graph: Graph, weights: Source, wanted: Kernel, shift: float = 0.0) -> tuple[Value, Value]:
    """Return kernel and bias of a convolution or classifier as tensors of the graph; `shift` is added to the bias."""
    kernel, bias = weights(wanted)
    bias = bias + np.float32(shift) if shift else bias
    return graph.constant(f"{wanted.name}/kernel", kernel), graph.constant(f"{wanted.name}/bias", bias)


def _shifted(graph: Graph, name: str, x: Value) -> Value:
    """Return x with all pixels moved one up and left.

    The next operator has stride 2, so on even sizes it needs no zeros after the last pixels. x has at least 2 x 2
    pixels, because the image is at least as large as the output stride.
    """
    batch, height, width, channels = x.shape
    y = graph.slice(name, x, (0, 1, 1, 0), (batch, height - 1, width - 1, channels))
    return graph.pad(f"{name}.pad", y, ((0, 0), (0, 1), (0, 1), (0, 0))) if height % 2 else y
