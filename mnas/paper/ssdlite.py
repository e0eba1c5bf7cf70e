"""SSDLite on a named network for COCO, with the paper's default boxes: costs, and files with random weights."""

import numpy as np

from mnas.arch import Arch
from mnas.detector import Detector, DetectorMetadata, paper_boxes
from mnas.nn.detection.cost import detector_cost
from mnas.tflite.detection.writer import detector_graph
from mnas.zoo.architectures import named_arch

_HALVES = (0.5, 0.5, 0.5)
_IMAGES = 8
"""Number of photographs that set batch norm's statistics."""


def ssdlite(name: str) -> Detector:
    """Return SSDLite on the network `name`, for images of 320 pixels. Raises ValueError for an unknown name."""
    arch = named_arch(name)
    assert isinstance(arch, Arch)
    return Detector(arch=arch, boxes=paper_boxes())


def ssdlite_cost(name: str, num_classes: int) -> tuple[int, int]:
    """Return params and multiply-accumulates of `ssdlite`, for classes without the background."""
    whole = detector_cost(ssdlite(name), num_classes)
    return whole.params, whole.macs


def ssdlite_litert(name: str, num_classes: int) -> bytes:
    """Return a LiteRT file of `ssdlite`, which returns all boxes."""
    return detector_graph(ssdlite(name), num_classes)


def ssdlite_onnx(name: str, num_classes: int) -> bytes:
    """Return an ONNX file of `ssdlite`, which returns all boxes. Raises ImportError if onnx or onnxscript is missing.

    The weights keep activations near 1, as after training, so that no denormal, zero or infinity changes a time.
    """
    import torch

    from mnas.export.detector.onnx import detector_onnx
    from mnas.export.images import photographs
    from mnas.export.random_network import set_statistics
    from mnas.nn.detection.network import build_detector

    detector = ssdlite(name)
    classes = tuple(f"class {i}" for i in range(num_classes))
    metadata = DetectorMetadata(detector=detector, classes=classes, mean=_HALVES, std=_HALVES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_detector(detector, num_classes)
    pixels = photographs(detector.input_size, _IMAGES).pixels
    set_statistics(network, np.divide(pixels, 127.5, dtype=np.float32) - np.float32(1))
    return detector_onnx(network, metadata, seal=False)
