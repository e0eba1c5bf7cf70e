"""Write a network as a LiteRT file directly: the graph that a search measures is, byte for byte, the exported graph.

Input `image` (1, S, S, 3) float32, output `logits` (1, classes) float32 (`probabilities` with a softmax). The graph
does not normalise: it takes RGB images in [0, 1], minus mean and divided by std, which the metadata hold.

Operators: batch norm is folded into the convolution before it, ReLU and ReLU6 are fused; the other activations follow
it: HARD_SWISH, or LOGISTIC and MUL for SiLU. Squeeze-and-excitation is MEAN, CONV_2D, CONV_2D, LOGISTIC, MUL; with a
hard-sigmoid gate, relu6(x + 3) / 6, the second CONV_2D adds the 3 and fuses the ReLU6, and a MUL replaces LOGISTIC. A
pooled skip is AVERAGE_POOL_2D, then PAD or SLICE of the channels, then ADD.
For networks of cells see mnas.tflite.cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.cell_arch import CellArch
from mnas.metadata import ModelMetadata, Triple
from mnas.ops import ActivationOrNone, Convolution, Mean, Residual, Squeeze, Visit
from mnas.tflite.cells import add_cells, constants
from mnas.tflite.graph import Fused, Graph, Padding, Value
from mnas.tflite.metadata import append_labels, metadata_entries, sealed
from mnas.tflite.source import Kernel, Source, random_weights
from mnas.training_data import TrainedOn

if TYPE_CHECKING:  # torch takes seconds to import, and a graph of random weights does not need it
    from mnas.nn.network import Network


def write_tflite(
    network: "Network",
    input_size: int,
    *,
    labels: Sequence[str] = (),
    mean: Triple | None = None,
    std: Triple | None = None,
    crop: float = 1.0,
    softmax: bool = False,
    trained_on: TrainedOn = (),
) -> bytes:
    """Return the file of the network in evaluation mode, for images of input_size x input_size.

    The file contains `labels` (one for each class, or none), `mean` and `std` (None: not recorded), `crop`,
    `trained_on`, and digests; see mnas.tflite.metadata. The same arguments give the same bytes.

    Raises:
        ValueError: the input is too small for the strides, the number of labels is wrong, a label has several lines, or
            a weight is not finite.
    """
    from mnas.tflite.weights import network_weights

    outputs = network.classifier.out_features
    if labels and len(labels) != outputs:
        raise ValueError(f"labels must have one name for each of the {outputs} classes, but got {len(labels)}")
    metadata = ModelMetadata(
        arch=network.arch,
        input_size=input_size,
        classes=tuple(labels),
        unnamed_classes=0 if labels else outputs,
        mean=mean,
        std=std,
        crop=crop,
        softmax=softmax,
        trained_on=trained_on,
    )
    return sealed(_write(metadata, network_weights(network), seal=True))


def graph_bytes(arch: Architecture, input_size: int, num_classes: int = 1000, *, seed: int = 0) -> bytes:
    """Return the graph that `write_tflite` writes for a network of `arch`, with random weights, to measure its latency.

    It builds no network, so it takes a fraction of the time of `write_tflite(build_network(...))` and does not use
    torch's generator.

    Raises:
        ValueError: the input is too small for the strides.
    """
    metadata = ModelMetadata(arch=arch, input_size=input_size, unnamed_classes=num_classes)
    return _write(metadata, random_weights(seed), seal=False)


def _write(metadata: ModelMetadata, weights: Source, *, seal: bool) -> bytes:
    arch, input_size = metadata.arch, metadata.input_size
    graph = Graph()
    image = graph.value("image", (1, input_size, input_size, 3))
    if isinstance(arch, CellArch):
        x = graph.mean("head.mean", add_cells(graph, arch, weights, image))
    else:
        x = _add_blocks(graph, arch, weights, image)
    kernel, bias = constants(graph, weights, Kernel("classifier", (metadata.num_classes, x.channels), combines=True))
    x = graph.fully_connected("logits", x, kernel, bias)
    if metadata.softmax:
        x = graph.softmax("probabilities", x)
    output = "probabilities" if metadata.softmax else "logits"
    entries = metadata_entries(metadata, seal=seal)
    model = graph.to_bytes(inputs={"image": image}, outputs={output: x}, metadata=entries)
    return append_labels(model, metadata.classes)


def _add_blocks(graph: Graph, arch: Arch, weights: Source, image: Value) -> Value:
    renderer = _Renderer(graph, arch, weights)
    x, values = image, {"": image}
    for visit in arch.visit(image.shape[1]):
        if isinstance(visit.part, Residual):
            x = renderer.residual(visit, visit.part, x, values[visit.source])
        elif isinstance(visit.part, Squeeze):
            x = renderer.squeeze_excite(visit.name, visit.part, x)
        elif isinstance(visit.part, Mean):
            x = graph.mean(visit.name, x)
        else:
            x = renderer.convolution(visit.name, visit.part, x)
        values[visit.name] = x
    return x


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
