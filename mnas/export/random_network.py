"""Make a network of random weights from an architecture, and a file of it for any runtime.

The weights keep activations near 1, as after training, so that no denormal, zero or infinity changes a time. int8 files
take the ranges of their activations from photographs.
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
from mnas.metadata import ModelMetadata
from mnas.nn.network import Network, build_network
from mnas.nn.weights import weights_bytes
from mnas.tflite.writer import graph_bytes

IMAGES = 8
"""Number of photographs that set batch norm's statistics and the ranges of int8."""


def random_file(arch: Architecture, input_size: int, num_classes: int, setup: Setup, *, int8: bool) -> bytes:
    """Return the file for `setup.runtime`, at its batch where the format has one.

    Raises:
        ValueError: the input is too small for the strides, or XNNPACK has no int8 kernels for it.
        ImportError: the format's package is missing.
    """
    if setup.runtime.startswith("litert"):
        graph = graph_bytes(arch, input_size, num_classes)
        return litert_int8(graph, _photographs(_info(arch, input_size, num_classes))) if int8 else graph
    network, info = random_network(arch, input_size, num_classes)
    images = np.ascontiguousarray(_photographs(info).transpose(0, 3, 1, 2))
    if setup.runtime == "onnxruntime":
        model = onnx_fp32(network, info, seal=False)
        return onnx_int8(model, images) if int8 else model
    if setup.runtime == "executorch":
        if int8:
            if isinstance(arch, Arch) and any(layer.skip == "pool" and layer.stride > 1 for layer in arch.layers):
                raise ValueError(
                    "an int8 network for executorch must have no pooled skip at stride 2, because XNNPACK in "
                    "ExecuTorch 1.5 rejects it; litert and onnxruntime have it"
                )
            return executorch_int8(network, info, images, batch=setup.batch)
        return executorch_fp32(network, info, batch=setup.batch)
    return weights_bytes(network, info, seal=False)


def random_network(arch: Architecture, input_size: int, num_classes: int) -> tuple[Network, ModelMetadata]:
    """Return a network with fixed random weights, and batch norm's statistics from photographs."""
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


def _info(arch: Architecture, input_size: int, num_classes: int) -> ModelMetadata:
    return ModelMetadata(
        arch=arch,
        classes=tuple(f"class {i}" for i in range(num_classes)),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        input_size=input_size,
        accuracy=None,
    )


def _photographs(info: ModelMetadata) -> NDArray[np.float32]:
    """Return photographs (N, S, S, 3), normalised."""
    return normalised(info, photographs(info.input_size, IMAGES).pixels)
