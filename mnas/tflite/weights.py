"""Where a LiteRT graph's weights come from: a trained network, batch norm folded in, or a random generator.

A source maps (name, shape) to (kernel, bias), both float32: names as `block1.0.expand`, shapes as LiteRT stores them
(convolution (outputs, k, k, inputs), depthwise (1, k, k, channels), classifier (outputs, inputs)).
"""

import math
from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mnas.nn.blocks import ConvNorm, LayerModule, SqueezeExcite
from mnas.nn.network import BlockNetwork, CellNetwork, Network

Weights = tuple[NDArray[np.float32], NDArray[np.float32]]
Source = Callable[[str, tuple[int, ...]], Weights]
LINEAR_INPUT = (".project", ".pointwise", "classifier")
"""Ends of the names of convolutions whose input has passed no ReLU."""


def network_weights(network: Network) -> Source:
    """The network's weights as in evaluation mode, on whatever device and in whatever type they are.

    Raises:
        ValueError: a weight is NaN or infinite, or too large for float32 once batch norm is folded in.
    """
    modules = _named_parts(network)

    def source(name: str, shape: tuple[int, ...]) -> Weights:
        kernel, bias = _folded(modules[name])
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise ValueError(f"weights must be finite, but got NaN or infinity in {name}; did the training diverge?")
        assert kernel.shape == shape, (name, kernel.shape, shape)
        return kernel, bias

    return source


def _named_parts(network: Network) -> dict[str, nn.Module]:
    """The network's convolutions and classifier, by the names that they have in the graph."""
    if isinstance(network, CellNetwork):
        parts = dict(zip((step.name for step in network.cells.steps), network.cells.parts.values(), strict=True))
        return {**parts, "classifier": network.classifier}
    assert isinstance(network, BlockNetwork)
    modules: dict[str, nn.Module] = {"stem": network.stem, "head": network.head, "classifier": network.classifier}
    for module in network.layers:
        assert isinstance(module, LayerModule)
        for name, part in module.named_children():
            if isinstance(part, SqueezeExcite):
                ends = {"reduce": part.reduce, "expand": part.expand}
                modules |= {f"{module.layer.name}.{name}.{end}": conv for end, conv in ends.items()}
            else:
                modules[f"{module.layer.name}.{name}"] = part
    return modules


def _folded(module: nn.Module) -> Weights:
    """Kernel in LiteRT's layout and bias; batch norm folded in float64, rounded once."""
    if isinstance(module, nn.Linear):
        return _array(module.weight).astype(np.float32), _array(module.bias).astype(np.float32)
    if isinstance(module, nn.Conv2d):
        bias = np.zeros(module.out_channels, np.float32)
        if module.bias is not None:
            bias = _array(module.bias).astype(np.float32)
        return _to_litert(_array(module.weight), _axes(module)), bias
    assert isinstance(module, ConvNorm)
    norm = module.norm
    mean, variance = _array(cast(Tensor, norm.running_mean)), _array(cast(Tensor, norm.running_var))
    with np.errstate(invalid="ignore", over="ignore"):  # the caller refuses what is not finite, and says where
        scale = _array(norm.weight) / np.sqrt(variance + norm.eps)
        bias = (_array(norm.bias) - mean * scale).astype(np.float32)
        kernel = _array(module.conv.weight) * scale[:, None, None, None]
        return _to_litert(kernel, _axes(module.conv)), bias


def _axes(conv: nn.Conv2d) -> tuple[int, ...]:
    """torch's axes in LiteRT's order."""
    return (1, 2, 3, 0) if conv.groups > 1 else (0, 2, 3, 1)


def _array(tensor: Tensor) -> NDArray[np.float64]:
    """In numpy, which computes in this thread: torch's others would wait for cores that the rest of a search uses."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype.itemsize < 4 else tensor).numpy().astype(np.float64)


def _to_litert(kernel: NDArray[np.float64], axes: tuple[int, ...]) -> NDArray[np.float32]:
    return np.ascontiguousarray(kernel.transpose(axes), np.float32)


def random_weights(seed: int) -> Source:
    """Normal weights that keep activations near 1, so that no denormal, zero or infinity changes a latency.

    All are cut from one short random sequence: drawing millions of numbers would cost more than writing the file.
    """
    sequence = np.random.default_rng(seed).standard_normal(65521, np.float32)  # a prime, no divisor of any row

    def source(name: str, shape: tuple[int, ...]) -> Weights:
        fan_in = math.prod(shape[1:3] if name.endswith(".depthwise") else shape[1:])
        gain = 1.0 if name.endswith(LINEAR_INPUT) else 2.0  # 2: half of the values pass a ReLU
        kernel = np.resize(sequence, shape) * np.float32(math.sqrt(gain / fan_in))
        outputs = shape[-1] if name.endswith(".depthwise") else shape[0]
        return kernel, np.zeros(outputs, np.float32)

    return source
