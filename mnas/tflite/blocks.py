"""The parts of a network of blocks as operators of a LiteRT graph.

Operators: batch norm is folded into the convolution before it, ReLU and ReLU6 are fused; the other activations follow
it: HARD_SWISH, or LOGISTIC and MUL for SiLU. Squeeze-and-excitation is MEAN, CONV_2D, CONV_2D, LOGISTIC, MUL; with a
hard-sigmoid gate, relu6(x + 3) / 6, the second CONV_2D adds the 3 and fuses the ReLU6, and a MUL replaces LOGISTIC. A
pooled skip is AVERAGE_POOL_2D, then PAD or SLICE of the channels, then ADD.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mnas.arch import Arch
from mnas.ops import ActivationOrNone, Convolution, Mean, Residual, Squeeze, Visit
from mnas.tflite.cells import constants
from mnas.tflite.graph import Fused, Graph, Padding, Value
from mnas.tflite.source import Kernel, Source


def add_visits(graph: Graph, arch: Arch, weights: Source, visits: Iterable[Visit], image: Value) -> dict[str, Value]:
    """Add parts of a network of `arch` to `graph`, in order of computation, and return their results by name."""
    renderer = _Renderer(graph, arch, weights)
    last, values = image, {"": image}
    for visit in visits:
        x = values[visit.source]
        if isinstance(visit.part, Residual):
            last = renderer.residual(visit, visit.part, last, x)
        elif isinstance(visit.part, Squeeze):
            last = renderer.squeeze_excite(visit.name, visit.part, x)
        elif isinstance(visit.part, Mean):
            last = graph.mean(visit.name, x)
        else:
            last = renderer.convolution(visit.name, visit.part, x)
        values[visit.name] = last
    return values


def _fused_name(name: str, activation: ActivationOrNone) -> tuple[Fused, str]:
    """Return what an operator fuses of its activation, and the name of its result, where another one follows."""
    if activation == "hardswish" or activation == "silu":
        return "none", f"{name}.linear"
    return activation, name


@dataclass(frozen=True)
class _Renderer:
    """Writer of a network of `arch` into a graph; each method adds one part and returns its result."""

    graph: Graph
    arch: Arch
    weights: Source

    def convolution(self, name: str, part: Convolution, x: Value) -> Value:
        shape = (1 if part.depthwise else part.outputs, part.kernel, part.kernel, x.channels)
        weights = constants(self.graph, self.weights, Kernel(name, shape, part.depthwise, combines=part.linear))
        fused, linear = _fused_name(name, part.activation)
        x, padding = self._padded(name, x, part.kernel, part.stride)
        if part.depthwise:
            y = self.graph.depthwise(linear, x, *weights, stride=part.stride, padding=padding, fused=fused)
        else:
            y = self.graph.conv(linear, x, *weights, stride=part.stride, padding=padding, fused=fused)
        return self._activated(name, part.activation, y)

    def _activated(self, name: str, activation: ActivationOrNone, x: Value) -> Value:
        """Add the activation, unless the operator before it fuses it."""
        if activation == "hardswish":
            return self.graph.hardswish(name, x)
        if activation == "silu":
            return self.graph.multiply(name, x, self.graph.sigmoid(f"{name}.sigmoid", x))
        return x

    def _padded(self, name: str, x: Value, kernel: int, stride: int) -> tuple[Value, Padding]:
        """Return x, padded if necessary, and the LiteRT padding that together have the architecture's padding.

        SAME is symmetric at stride 1 and on odd sizes; on even sizes at stride 2 it has a pixel less before the image.
        """
        if self.arch.padding == "same" or stride == 1 or kernel == 1 or x.shape[1] % 2:
            return x, "same"
        side = (kernel // 2, kernel // 2)
        return self.graph.pad(f"{name}.pad", x, ((0, 0), side, side, (0, 0))), "valid"

    def squeeze_excite(self, name: str, part: Squeeze, x: Value) -> Value:
        hard = part.gate == "hardsigmoid"
        gate = self.graph.mean(f"{name}.mean", x)
        activations: tuple[ActivationOrNone, ActivationOrNone] = part.activation, "none"
        for (end, inputs, outputs), activation in zip(part.ends, activations, strict=True):
            fused, linear = _fused_name(f"{name}.{end}", activation)
            shift = 0.0
            if hard and end == "expand":
                fused, shift = "relu6", 3.0
            weights = constants(self.graph, self.weights, Kernel(f"{name}.{end}", (outputs, 1, 1, inputs)), shift)
            gate = self.graph.conv(linear, gate, *weights, stride=1, padding="same", fused=fused)
            gate = self._activated(f"{name}.{end}", activation, gate)
        if hard:
            sixth = self.graph.constant(f"{name}.gate/factor", np.full((1, 1, 1, 1), 1 / 6, np.float32))
            gate = self.graph.multiply(f"{name}.gate", gate, sixth)
        else:
            gate = self.graph.sigmoid(f"{name}.gate", gate)
        return self.graph.multiply(name, x, gate)

    def residual(self, visit: Visit, part: Residual, x: Value, entry: Value) -> Value:
        """Add the sum of x and `entry`, the layer's input, or its pool."""
        addend = self._pooled(f"{visit.layer}.pool", part, entry) if part.pooled else entry
        return self.graph.add(visit.name, x, addend)

    def _pooled(self, name: str, part: Residual, x: Value) -> Value:
        """Add a 3x3 mean over the valid pixels, with channels cut or zero-padded to the layer's output."""
        graph = self.graph
        padded, padding = self._padded(name, x, 3, part.stride)
        y = graph.average_pool(name, padded, kernel=3, stride=part.stride, padding=padding)
        if padding == "valid":
            # The pool counted padded zeros, 3 of the 9 pixels along the top and the left.
            share = np.ones(y.shape[1], np.float32)
            share[0] = 3 / 2
            factor = graph.constant(f"{name}/factor", np.outer(share, share).reshape(1, *y.shape[1:3], 1))
            y = graph.multiply(f"{name}.valid", y, factor)
        surplus = part.outputs - y.channels
        if surplus > 0:
            return graph.pad(f"{name}.fit", y, ((0, 0), (0, 0), (0, 0), (0, surplus)))
        return graph.first_channels(f"{name}.fit", y, part.outputs) if surplus < 0 else y
