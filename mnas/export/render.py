"""An architecture with random weights as the file that a runtime takes: what its latency is measured on.

The weights are such that activations stay near 1, as after training: no denormal, zero or infinity changes a time. int8
files take the ranges of their activations from photographs.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.export.executorch import executorch_fp32, executorch_int8
from mnas.export.gate import normalised
from mnas.export.images import photographs
from mnas.export.litert import litert_int8
from mnas.export.onnx import onnx_fp32, onnx_int8
from mnas.latency.latency import Setup
from mnas.latency.protocol import Render
from mnas.nn.network import Network, build_network
from mnas.nn.weights import WeightsInfo, weights_bytes
from mnas.tflite.writer import graph_bytes

INT8_RUNTIMES = ("litert", "litert-builtin", "onnxruntime", "executorch")
"""For which an architecture can be had in int8; files are measured as they are."""
IMAGES = 8
"""Photographs that batch norm's statistics and the ranges of int8 are taken from."""


def render(setup: Setup, *, int8: bool = False) -> Render:
    """How an architecture becomes a file for `setup.runtime`, and for its batch where a file has one.

    What is returned raises ValueError for an input too small for the strides, and ImportError where the format's
    package is missing.

    Raises:
        ValueError: int8 for a runtime that has none.
    """
    if int8 and setup.runtime not in INT8_RUNTIMES:
        raise ValueError(f"int8 of an architecture is for {', '.join(INT8_RUNTIMES)}, but got {setup.runtime}")

    def rendered(arch: Architecture, input_size: int, num_classes: int) -> bytes:
        if setup.runtime.startswith("litert"):  # built from no network, in a tenth of a second
            graph = graph_bytes(arch, input_size, num_classes)
            return litert_int8(graph, _photographs(_info(arch, input_size, num_classes))) if int8 else graph
        network, info = random_network(arch, input_size, num_classes)
        images = np.ascontiguousarray(_photographs(info).transpose(0, 3, 1, 2))
        if setup.runtime == "onnxruntime":
            model = onnx_fp32(network, info)
            return onnx_int8(model, images) if int8 else model
        if setup.runtime == "executorch":
            if int8:
                if isinstance(arch, Arch) and any(layer.skip == "pool" and layer.stride > 1 for layer in arch.layers):
                    raise ValueError(
                        "int8 for executorch must have no pooled skip at stride 2, which its XNNPACK refuses to load "
                        "(ExecuTorch 1.5); other runtimes run it"
                    )
                return executorch_int8(network, info, images, batch=setup.batch)
            return executorch_fp32(network, info, batch=setup.batch)
        return weights_bytes(network, info)

    return rendered


def random_network(arch: Architecture, input_size: int, num_classes: int) -> tuple[Network, WeightsInfo]:
    """Always the same weights, and batch norm's statistics of photographs, layer by layer as training gathers them."""
    info = _info(arch, input_size, num_classes)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = build_network(arch, num_classes)
        momenta = []
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                momenta.append((module, module.momentum))
                module.momentum = 1.0
        network.train()(torch.from_numpy(_photographs(info)).permute(0, 3, 1, 2))
        for module, momentum in momenta:
            module.momentum = momentum
    return network.eval(), info


def _info(arch: Architecture, input_size: int, num_classes: int) -> WeightsInfo:
    return WeightsInfo(
        arch=arch,
        classes=tuple(f"class {i}" for i in range(num_classes)),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        input_size=input_size,
        accuracy=None,
    )


def _photographs(info: WeightsInfo) -> NDArray[np.float32]:
    """(N, S, S, 3), normalised."""
    return normalised(info, photographs(info.input_size, IMAGES).pixels)
