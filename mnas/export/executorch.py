"""A trained network as an ExecuTorch program: (1, 3, S, S) float32, normalised -> (1, classes); computed by XNNPACK."""

import hashlib
import json
import logging
import warnings
from typing import cast

import torch
from torch import Tensor, nn

from mnas.nn.network import Network
from mnas.nn.weights import WeightsInfo, weights_json


def executorch_fp32(network: Network, info: WeightsInfo) -> bytes:
    """The network as in evaluation mode.

    Raises:
        ImportError: executorch is missing.
    """
    pytree = logging.getLogger("torch.utils._pytree")
    level = pytree.level
    pytree.setLevel(logging.ERROR)  # a deprecation in torchao, which executorch imports
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError:
        raise ImportError("--to executorch needs executorch; pip install 'mnas[executorch]'") from None
    finally:
        pytree.setLevel(level)
    example = torch.zeros(1, 3, info.input_size, info.input_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(_FourDimensional(network).eval(), (example,))
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        return bytes(lowered.to_executorch().buffer)


def sidecar(info: WeightsInfo, program: bytes) -> str:
    """What stands in `model.pte.json`, as the program itself has no place for text; its SHA-256, as damage would end
    the process that loads it."""
    values = weights_json(info) | {"sha256": hashlib.sha256(program).hexdigest()}
    return json.dumps(values, ensure_ascii=False, indent=1) + "\n"


class _FourDimensional(nn.Module):
    """The network with its last mean in four dimensions: the only mean that XNNPACK takes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        net = self.network
        x = net.head(net.layers(net.stem(x)))
        return cast(Tensor, net.classifier(x.mean((2, 3), keepdim=True).flatten(1)))
