"""Make the file that a detector's latency is measured on: random weights, boxes selected inside, as it ships."""

import numpy as np
import torch
from torch import nn

from mnas.detector import Detector, DetectorMetadata, Suppression
from mnas.export.detector.litert import detector_int8
from mnas.export.detector.onnx import detector_onnx
from mnas.export.images import photographs
from mnas.export.random_network import IMAGES
from mnas.export.render import require_detector_runtime
from mnas.nn.detection.network import DetectorNetwork, build_detector
from mnas.tflite.detection.heads import BACKGROUND_LOGIT, CLASS_SPREAD
from mnas.tflite.detection.writer import detector_graph


def random_detector_file(detector: Detector, num_classes: int, runtime: str, *, int8: bool = False) -> bytes:
    """Return the file of a detector with random weights that selects boxes by the default rules.

    Raises:
        ValueError: the runtime has no detectors, or none in int8.
        ImportError: the format's package is missing.
    """
    require_detector_runtime(runtime, int8=int8)
    rules = Suppression()
    if runtime.startswith("litert"):
        graph = detector_graph(detector, num_classes, rules)
        return detector_int8(graph, photographs(detector.input_size, IMAGES).pixels) if int8 else graph
    network, metadata = _random_detector(detector, num_classes)
    return detector_onnx(network, metadata, rules, seal=False)


def _random_detector(detector: Detector, num_classes: int) -> tuple[DetectorNetwork, DetectorMetadata]:
    """Return a network with fixed random weights, batch norm's statistics from photographs, and mostly background."""
    classes = tuple(f"class {i}" for i in range(num_classes))
    metadata = DetectorMetadata(detector=detector, classes=classes, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    images = photographs(detector.input_size, IMAGES).pixels.astype(np.float32) / 127.5 - 1
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = build_detector(detector, num_classes)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        network.train()(torch.from_numpy(images).permute(0, 3, 1, 2))
        for predictions in network.predict:
            convolution = predictions.get_submodule("classes.output.conv")
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.bias is not None
            nn.init.normal_(convolution.weight, std=CLASS_SPREAD / convolution.in_channels**0.5)
            convolution.bias.view(-1, 1 + num_classes)[:, 0] = BACKGROUND_LOGIT
    return network.eval(), metadata
