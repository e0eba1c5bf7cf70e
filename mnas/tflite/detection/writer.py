"""Write a detector as a LiteRT file directly, as mnas.tflite.writer does with classification networks.

Input `image` (1, S, S, 3) float32. The raw file has two outputs:

- `boxes` (1, A, 4): left, top, right and bottom of all A boxes, as shares of the image, within it;
- `scores` (1, A, C): probability of each class; what is missing to 1 is the background's.

A file with `Suppression` has the four outputs of TFLite_Detection_PostProcess, which MediaPipe and ML Kit expect, best
score first, with zeros after the last object:

- `location` (1, N, 4): top, left, bottom and right, as shares of the image;
- `category` (1, N): class, from 0; `score` (1, N): its probability;
- `count` (1,): number of objects.

MediaPipe normalises all channels of an image alike. So where mean and std differ between channels, a file with
`Suppression` takes pixels from -1 to 1, and its first two operators do the rest.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from mnas.detector import Detector, DetectorMetadata, Suppression
from mnas.metadata import Triple
from mnas.nn.detection.parts import detector_visits
from mnas.tflite.blocks import add_visits
from mnas.tflite.detection import heads
from mnas.tflite.detection.metadata import detector_entries
from mnas.tflite.graph import Graph, Value
from mnas.tflite.metadata import append_labels, sealed
from mnas.tflite.source import Source, random_weights

if TYPE_CHECKING:  # torch takes seconds to import, and a graph of random weights does not need it
    from mnas.nn.detection.network import DetectorNetwork

_HALVES: Triple = (0.5, 0.5, 0.5)


def write_detector(
    network: "DetectorNetwork", metadata: DetectorMetadata, suppression: Suppression | None = None
) -> bytes:
    """Return the file of a detector in evaluation mode.

    The file contains labels, normalisation, `metadata`, `suppression` and digests. The same arguments give the same
    bytes.

    Args:
        suppression: rules by which the file selects boxes; None: it returns all boxes.

    Raises:
        ValueError: the metadata are those of another detector, they lack names of classes, or a weight is not finite.
    """
    from mnas.nn.detection.network import require_metadata
    from mnas.tflite.weights import detector_weights

    require_metadata(network, metadata)
    return sealed(_write(metadata, suppression, detector_weights(network), seal=True))


def detector_graph(
    detector: Detector, num_classes: int, suppression: Suppression | None = None, *, seed: int = 0
) -> bytes:
    """Return the graph that `write_detector` writes, with random weights, to measure its latency.

    As with a trained detector, few boxes have a score to select them by.
    """
    names = tuple(f"class {i}" for i in range(num_classes))
    metadata = DetectorMetadata(detector=detector, classes=names, mean=_HALVES, std=_HALVES)
    return _write(metadata, suppression, heads.mostly_background(random_weights(seed), num_classes), seal=False)


def _write(metadata: DetectorMetadata, suppression: Suppression | None, weights: Source, *, seal: bool) -> bytes:
    detector, num_classes = metadata.detector, len(metadata.classes)
    graph = Graph()
    image = entry = graph.value("image", (1, detector.input_size, detector.input_size, 3))
    if suppression is not None:
        weights = heads.rows_first(weights)
        if len({*zip(metadata.mean, metadata.std, strict=True)}) > 1:
            entry = _normalised(graph, image, metadata)
            metadata = dataclasses.replace(metadata, mean=_HALVES, std=_HALVES)
    values = add_visits(graph, detector.arch, weights, detector_visits(detector, num_classes), entry)
    logits = heads.predictions(graph, detector, values, "classes", 1 + num_classes)
    offsets = heads.predictions(graph, detector, values, "offsets", 4)
    first, last = heads.edges(graph, detector, offsets, rows_first=suppression is not None)
    probabilities = heads.scores(graph, logits)
    if suppression is None:
        boxes = graph.concat(heads.BOXES, [first, last], axis=2)
        outputs = {heads.BOXES: boxes, heads.SCORES: heads.class_scores(graph, probabilities)}
    else:
        outputs = heads.selected(graph, first, last, probabilities, suppression)
    entries = detector_entries(metadata, suppression, seal=seal)
    model = graph.to_bytes(inputs={"image": image}, outputs=outputs, metadata=entries)
    return append_labels(model, metadata.classes)


def _normalised(graph: Graph, image: Value, metadata: DetectorMetadata) -> Value:
    """Add the network's input for pixels from -1 to 1."""
    mean, std = (np.array(values, np.float64) for values in (metadata.mean, metadata.std))
    factor, shift = (np.asarray(v, np.float32).reshape(1, 1, 1, 3) for v in (0.5 / std, (0.5 - mean) / std))
    x = graph.multiply("image.scaled", image, graph.constant("image/factor", factor))
    return graph.add("image.normalised", x, graph.constant("image/shift", shift))
