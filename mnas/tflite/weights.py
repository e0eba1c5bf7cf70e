"""Weights of a trained network for a LiteRT graph, with batch norm folded in."""

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mnas.nn.blocks import ConvNorm, LayerModule, SqueezeExcite
from mnas.nn.detection.network import Backbone, DetectorNetwork
from mnas.nn.network import BlockNetwork, CellNetwork, Network
from mnas.tflite.source import Kernel, Source, Weights


def network_weights(network: Network) -> Source:
    """Return the network's weights in evaluation mode, for a network on any device and of any floating-point type.

    Raises:
        ValueError: a weight is NaN or infinite, or too large for float32 after batch norm is folded in.
    """
    return _source(_named_parts(network))


def detector_weights(network: DetectorNetwork) -> Source:
    """Return a detector's weights, as `network_weights` those of a network."""
    return _source(_detector_parts(network))


def _source(modules: Mapping[str, nn.Module]) -> Source:
    def source(wanted: Kernel) -> Weights:
        kernel, bias = _folded(modules[wanted.name])
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise ValueError(
                f"weights must be finite, but got NaN or infinity in {wanted.name}; did the training diverge?"
            )
        assert kernel.shape == wanted.shape, (wanted, kernel.shape)
        return kernel, bias

    return source


def _named_parts(network: Network) -> dict[str, nn.Module]:
    """Return the network's convolutions and classifier, by their names in the graph."""
    if isinstance(network, CellNetwork):
        parts = dict(zip((step.name for step in network.cells.steps), network.cells.parts.values(), strict=True))
        return {**parts, "classifier": network.classifier}
    assert isinstance(network, BlockNetwork)
    return {**_block_parts(network), "classifier": network.classifier}


def _detector_parts(network: DetectorNetwork) -> dict[str, nn.Module]:
    """Return the detector's convolutions, by their names in the graph (`mnas.nn.detection.parts.detector_visits`)."""
    modules = _block_parts(network.backbone)
    for number, layer in enumerate(network.extra, 1):
        modules |= {f"extra.{number}.{name}": part for name, part in layer.named_children()}
    for number, layer in enumerate(network.predict, 1):
        for kind, chain in layer.named_children():
            modules |= {f"predict.{number}.{kind}.{name}": part for name, part in chain.named_children()}
    return modules


def _block_parts(network: BlockNetwork | Backbone) -> dict[str, nn.Module]:
    """Return the convolutions of stem, layers and head, by their names in the graph."""
    modules: dict[str, nn.Module] = {"stem": network.stem}
    if network.head is not None:
        modules["head"] = network.head
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
    """Return kernel, in LiteRT's layout, and bias; batch norm is folded in float64 and rounded once."""
    if isinstance(module, nn.Linear):
        return _array(module.weight).astype(np.float32), _array(module.bias).astype(np.float32)
    if isinstance(module, nn.Conv2d):
        bias = np.zeros(module.out_channels, np.float32)
        if module.bias is not None:
            bias = _array(module.bias).astype(np.float32)
        return _to_litert(_array(module.weight), _axes(module)), bias
    assert isinstance(module, ConvNorm)
    norm = getattr(module, "norm", None)
    if norm is None:
        return _folded(module.conv)
    mean, variance = _array(cast(Tensor, norm.running_mean)), _array(cast(Tensor, norm.running_var))
    with np.errstate(invalid="ignore", over="ignore"):  # the caller reports values that are not finite
        scale = _array(norm.weight) / np.sqrt(variance + norm.eps)
        bias = (_array(norm.bias) - mean * scale).astype(np.float32)
        kernel = _array(module.conv.weight) * scale[:, None, None, None]
        return _to_litert(kernel, _axes(module.conv)), bias


def _axes(conv: nn.Conv2d) -> tuple[int, ...]:
    """Return torch's axes in LiteRT's order."""
    return (1, 2, 3, 0) if conv.groups > 1 else (0, 2, 3, 1)


def _array(tensor: Tensor) -> NDArray[np.float64]:
    """Return a NumPy array: NumPy computes in this thread, while torch's threads would wait for busy cores."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype.itemsize < 4 else tensor).numpy().astype(np.float64)


def _to_litert(kernel: NDArray[np.float64], axes: tuple[int, ...]) -> NDArray[np.float32]:
    return np.ascontiguousarray(kernel.transpose(axes), np.float32)
