"""Write a network as a LiteRT file directly: the graph that a search measures is, byte for byte, the exported graph.

Input `image` (1, S, S, 3) float32, output `logits` (1, classes) float32 (`probabilities` with a softmax). The graph
does not normalise: it takes RGB images in [0, 1], minus mean and divided by std, which the metadata hold.

For the operators see mnas.tflite.blocks; for networks of cells, mnas.tflite.cells.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mnas.architecture import Architecture
from mnas.cell_arch import CellArch
from mnas.metadata import ModelMetadata, Triple
from mnas.tflite.blocks import add_visits
from mnas.tflite.cells import add_cells, constants
from mnas.tflite.graph import Graph
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
        x = list(add_visits(graph, arch, weights, arch.visit(input_size), image).values())[-1]
    kernel, bias = constants(graph, weights, Kernel("classifier", (metadata.num_classes, x.channels), combines=True))
    x = graph.fully_connected("logits", x, kernel, bias)
    if metadata.softmax:
        x = graph.softmax("probabilities", x)
    output = "probabilities" if metadata.softmax else "logits"
    entries = metadata_entries(metadata, seal=seal)
    model = graph.to_bytes(inputs={"image": image}, outputs={output: x}, metadata=entries)
    return append_labels(model, metadata.classes)
