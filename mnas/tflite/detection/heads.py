"""Boxes and scores from the predictions of a detector in a LiteRT graph, and optionally their selection.

Boxes are decoded as by `mnas.nn.detection.decoding.detections`: SSD's offsets, clipped to the image. The operator
TFLite_Detection_PostProcess (tensorflow/lite/kernels/detection_postprocess.cc) then selects boxes per class. It decodes
offsets itself, but does not clip boxes before it compares them, which gives other detections at the image's border.
So it gets the clipped boxes as offsets from default boxes that are the whole image: centre, and logarithm of the sides.

An int8 file computes all of them in float (`FLOAT_SCOPE`): each map's predictions then have a scale of their own, and
neither scores nor boxes are rounded to 256 steps.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flatbuffers import flexbuffers
from numpy.typing import NDArray

from mnas.detector import Detector, Suppression
from mnas.tflite.graph import Graph, Value
from mnas.tflite.source import Kernel, Source, Weights

SCOPE = "decode"
BOXES, SCORES = "boxes", "scores"
LOCATION, CATEGORY, SCORE, COUNT = "location", "category", "score", "count"
FLOAT_SCOPE = f"^({SCOPE}|{BOXES}|{SCORES})"
"""Regular expression for the names of this file's results."""
POSTPROCESS = "TFLite_Detection_PostProcess"
_CENTRE_STEP, _SIDE_STEP = 0.1, 0.2  # variances of SSD
_LARGEST_SCALE = 1000 / 16  # torchvision's limit for a box's side, as a multiple of the default box's
_SMALLEST_SIDE = 1e-6  # the logarithm of 0 is infinite
BACKGROUND_LOGIT, CLASS_SPREAD = 8.0, 0.25
"""Logit of the background in random weights, and the factor of the other logits: less than 2 % of scores reach 0.01."""
_ROWS_FIRST = [1, 0, 3, 2]  # order of (x, y, width, height) in TFLite_Detection_PostProcess


def predictions(graph: Graph, detector: Detector, values: Mapping[str, Value], name: str, width: int) -> Value:
    """Add the values (1, A, width) that the predictions `name`, classes or offsets, give for all default boxes."""
    parts = []
    for number in range(1, len(detector.boxes.shapes) + 1):
        x = values[f"predict.{number}.{name}.output"]
        _, height, columns, channels = x.shape
        shape = (1, height * columns * channels // width, width)
        parts.append(graph.reshape(f"{SCOPE}.{number}.{name}", x, shape))
    return graph.concat(f"{SCOPE}.{name}", parts, axis=1)


def scores(graph: Graph, logits: Value) -> Value:
    """Add the probabilities (1, A, 1 + C) of background and classes."""
    return graph.softmax(f"{SCOPE}.probabilities", logits)


def class_scores(graph: Graph, probabilities: Value) -> Value:
    """Add the scores (1, A, C) of the classes, without the background."""
    _, count, width = probabilities.shape
    return graph.slice(SCORES, probabilities, (0, 0, 1), (1, count, width - 1))


def edges(graph: Graph, detector: Detector, offsets: Value, *, rows_first: bool = False) -> tuple[Value, Value]:
    """Add the first and the last edges (1, A, 2) of all boxes, as shares of the image: (left, top), (right, bottom).

    Args:
        rows_first: whether offsets and edges have y before x.
    """
    count = offsets.shape[1]
    boxes = detector.default_boxes[:, _ROWS_FIRST] if rows_first else detector.default_boxes
    places, sides = boxes[None, :, :2], boxes[None, :, 2:]

    def constant(name: str, array: NDArray[np.floating[Any]]) -> Value:
        return graph.constant(f"{SCOPE}.{name}", np.asarray(array, np.float32))

    shift = graph.slice(f"{SCOPE}.shift", offsets, (0, 0, 0), (1, count, 2))
    shift = graph.multiply(f"{SCOPE}.shift.scaled", shift, constant("shift/sides", sides * _CENTRE_STEP))
    centre = graph.add(f"{SCOPE}.centre", shift, constant("centre/default", places))
    scale = graph.slice(f"{SCOPE}.scale", offsets, (0, 0, 2), (1, count, 2))
    scale = graph.multiply(f"{SCOPE}.scale.scaled", scale, constant("scale/step", np.full(1, _SIDE_STEP)))
    scale = graph.minimum(f"{SCOPE}.scale.most", scale, constant("scale/limit", np.full(1, np.log(_LARGEST_SCALE))))
    half = graph.multiply(f"{SCOPE}.half", graph.exp(f"{SCOPE}.exp", scale), constant("half/sides", sides / 2))
    one = constant("edge/one", np.ones(1))
    first, last = (
        graph.minimum(f"{SCOPE}.{name}.clipped", graph.relu(f"{SCOPE}.{name}.positive", edge), one)
        for name, edge in (
            ("first", graph.subtract(f"{SCOPE}.first", centre, half)),
            ("last", graph.add(f"{SCOPE}.last", centre, half)),
        )
    )
    return first, last


def selected(graph: Graph, first: Value, last: Value, probabilities: Value, settings: Suppression) -> dict[str, Value]:
    """Add the selection of boxes by TFLite_Detection_PostProcess, and return its four outputs by name.

    Args:
        first, last: edges (1, A, 2) of `edges` with y before x.
        probabilities: (1, A, 1 + C), with the background.
    """
    count = first.shape[1]
    centre = graph.add(f"{SCOPE}.sum", first, last)
    centre = graph.multiply(
        f"{SCOPE}.middle", centre, graph.constant(f"{SCOPE}.middle/half", np.full(1, 0.5, np.float32))
    )
    sides = graph.maximum(
        f"{SCOPE}.sides.positive",
        graph.subtract(f"{SCOPE}.sides", last, first),
        graph.constant(f"{SCOPE}.sides/least", np.full(1, _SMALLEST_SIDE, np.float32)),
    )
    encodings = graph.concat(f"{SCOPE}.encodings", [centre, graph.log(f"{SCOPE}.sides.log", sides)], axis=2)
    whole = graph.constant(f"{SCOPE}.anchors", np.tile(np.array([0, 0, 1, 1], np.float32), (count, 1)))
    most = settings.most
    outputs = {
        LOCATION: graph.value(LOCATION, (1, most, 4)),
        CATEGORY: graph.value(CATEGORY, (1, most)),
        SCORE: graph.value(SCORE, (1, most)),
        COUNT: graph.value(COUNT, (1,)),
    }
    options = _options(settings, probabilities.channels - 1)
    graph.custom(POSTPROCESS, (encodings, probabilities, whole), list(outputs.values()), options)
    return outputs


def _options(settings: Suppression, num_classes: int) -> bytes:
    builder = flexbuffers.Builder()
    with builder.Map():
        for name, number in (
            ("max_detections", settings.most),
            ("detections_per_class", settings.most),
            ("max_classes_per_detection", 1),
            ("num_classes", num_classes),
        ):
            builder.Int(name, number)
        builder.Bool("use_regular_nms", True)  # per class; the fast form compares boxes of all classes
        builder.Float("nms_score_threshold", settings.score_threshold)
        builder.Float("nms_iou_threshold", settings.nms_iou)
        for axis in "yxhw":
            builder.Float(f"{axis}_scale", 1.0)
    return bytes(builder.Finish())


def rows_first(weights: Source) -> Source:
    """Return the source with offsets in the order y, x, height, width."""

    def source(kernel: Kernel) -> Weights:
        values, bias = weights(kernel)
        if kernel.name.startswith("predict.") and kernel.name.endswith(".offsets.output"):
            order = (np.arange(len(bias)).reshape(-1, 4)[:, _ROWS_FIRST]).ravel()
            return values[order], bias[order]
        return values, bias

    return source


def mostly_background(weights: Source, num_classes: int) -> Source:
    """Return a source of random weights with which most boxes are background, as in a trained detector."""

    def source(kernel: Kernel) -> Weights:
        values, bias = weights(kernel)
        if kernel.name.startswith("predict.") and kernel.name.endswith(".classes.output"):
            bias = bias + np.resize(np.eye(1, 1 + num_classes, dtype=np.float32)[0] * BACKGROUND_LOGIT, len(bias))
            return values * np.float32(CLASS_SPREAD), bias.astype(np.float32)
        return values, bias

    return source
