"""Write a trained network as an ExecuTorch program for XNNPACK: (N, 3, S, S) float32, normalised -> (N, classes)."""

import contextlib
import io
import logging
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnas.metadata import ModelMetadata
from mnas.nn.network import Network


def executorch_fp32(network: Network, info: ModelMetadata, *, batch: int = 1) -> bytes:
    """Return the network in evaluation mode as a program for `batch` images at once.

    Raises:
        ImportError: executorch is missing.
    """
    _require_executorch()
    example = torch.zeros(batch, 3, info.input_size, info.input_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _lowered(_FourDimensional(network).eval(), example)


def executorch_int8(network: Network, info: ModelMetadata, images: NDArray[np.float32], *, batch: int = 1) -> bytes:
    """Return a program like that of `executorch_fp32` with int8 kernels, one scale per channel, and int8 activations.

    Args:
        images: (N, 3, S, S), normalised; typical images, which set the ranges of the activations.

    Raises:
        ImportError: executorch is missing.
    """
    _require_executorch()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        example = torch.zeros(batch, 3, info.input_size, info.input_size)
        exported = torch.export.export(_FourDimensional(network).eval(), (example,)).module()
        config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
        prepared = prepare_pt2e(exported, xnnpack.XNNPACKQuantizer().set_global(config))
        with torch.no_grad():
            for start in range(0, len(images), batch):
                # a program has a fixed batch: the first images fill up the last batch
                prepared(torch.from_numpy(np.resize(images[start : start + batch], example.shape)))
        return _lowered(convert_pt2e(prepared), example)


def _lowered(module: nn.Module, example: Tensor) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(module, (example,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return bytes(lowered.to_executorch().buffer)


def _require_executorch() -> None:
    pytree = logging.getLogger("torch.utils._pytree")
    level = pytree.level
    pytree.setLevel(logging.ERROR)  # a deprecation in torchao, which executorch imports
    try:
        import executorch.exir  # noqa: F401
    except ImportError:
        raise ImportError("writing ExecuTorch programs needs executorch; pip install 'mnas[executorch]'") from None
    finally:
        pytree.setLevel(level)


class _FourDimensional(nn.Module):
    """The network with its last mean in four dimensions, the only mean that XNNPACK supports."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        net = self.network
        return net.classify(net.features(x).mean((2, 3), keepdim=True).flatten(1))
