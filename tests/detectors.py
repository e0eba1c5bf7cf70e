"""Small detectors whose outputs are as decisive as those of trained ones, and their files side by side with torch."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from torch import Tensor, nn

from mnas.arch import Arch
from mnas.detector import DefaultBoxes, Detector, DetectorMetadata, paper_boxes
from mnas.nn.detection.decoding import Detections, detections
from mnas.nn.detection.network import DetectorNetwork, build_detector

CLASSES = ("cell", "plätelet", "a b")
STRINGS = "r1_k3_s22_e1_i8_o8,r1_k3_s22_e2_o8,r1_k3_s22_e3_o12_se0.25,r2_k3_s22_e4_o16"
FINE = DefaultBoxes(shapes=(((0.05, 0.1),), *paper_boxes().shapes))
"""Boxes with a map of output stride 8."""


def detector_of(strings: str = STRINGS, **fields: Any) -> Detector:
    """A detector of few channels, at 64 pixels: maps of 4, 2, 1, 1, 1 and 1 pixels along a side."""
    arch = fields.pop("arch", None) or replace(Arch.from_block_strings(strings), head_filters=24)
    return Detector(arch=arch, **{"boxes": paper_boxes(), "input_size": 64, "extra_filters": (8, 6, 6, 4), **fields})


def metadata_of(detector: Detector, classes: tuple[str, ...] = CLASSES, **fields: Any) -> DetectorMetadata:
    moments = {"mean": (0.1, 0.5, 0.9), "std": (0.2, 0.25, 0.3)}
    return DetectorMetadata(detector=detector, classes=classes, **{**moments, **fields})


def decisive(detector: Detector, num_classes: int = len(CLASSES), seed: int = 0) -> DetectorNetwork:
    """A network in evaluation mode whose scores reach from 0 to almost 1, and whose boxes leave their default boxes."""
    torch.manual_seed(seed)
    network = build_detector(detector, num_classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0.0, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 3.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.2, 0.5)
    for predictions in network.predict:
        for name, deviation in (("classes", 2.0), ("offsets", 1.0)):
            nn.init.normal_(predictions[name].output.conv.bias, 0.0, deviation)
            nn.init.normal_(predictions[name].output.conv.weight, 0.0, deviation / 4)
    return network.eval()


def pixels_of(detector: Detector, count: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth pictures (N, S, S, 3), so that the maps differ from pixel to pixel."""
    size = detector.input_size
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3)).astype(np.float32)
    fine = nn.functional.interpolate(torch.from_numpy(coarse).permute(0, 3, 1, 2), (size, size), mode="bicubic")
    return fine.permute(0, 2, 3, 1).clamp(0, 255).round().numpy().astype(np.uint8)


def normalised(pixels: NDArray[np.uint8], metadata: DetectorMetadata) -> NDArray[np.float32]:
    mean, std = np.array(metadata.mean), np.array(metadata.std)
    return ((pixels / 255 - mean) / std).astype(np.float32)


def torch_outputs(
    network: DetectorNetwork, metadata: DetectorMetadata, pixels: NDArray[np.uint8]
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        logits, offsets = network(torch.from_numpy(normalised(pixels, metadata)).permute(0, 3, 1, 2))
    assert logits.std() > 0.5  # or scores would say nothing
    return logits, offsets


def torch_detections(
    network: DetectorNetwork, metadata: DetectorMetadata, pixels: NDArray[np.uint8], threshold: float
) -> list[Detections]:
    """All objects above the threshold that no better one overlaps."""
    outputs = torch_outputs(network, metadata, pixels)
    return detections(*outputs, network.default_boxes, score_threshold=threshold, most=100_000)


def run_litert(model: bytes, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """All outputs for one image (S, S, 3), by name."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    return {each["name"]: interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()}


def assert_delegated_up_to(model: bytes, names: set[str]) -> None:
    """XNNPACK computes the tensors of these names, and nothing else, from nothing but the image and constants."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    details = interpreter._get_ops_details()
    (delegate,) = [op for op in details if op["op_name"] == "DELEGATE"]
    computed = {int(index) for op in details for index in op["outputs"]}
    assert {interpreter._get_tensor_details(int(i), 0)["name"] for i in delegate["outputs"]} == names
    assert interpreter.get_input_details()[0]["index"] in delegate["inputs"]
    assert not computed.intersection(map(int, delegate["inputs"]))
