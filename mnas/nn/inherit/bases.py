"""How many channels of a parent become few: a choice of channels, or a rotation of the linear result of a block.

The result of a projection enters only linear maps and sums, so that any basis serves as well as the channels. The best
few directions are those that carry most variance, as weighted by the maps that consume them (a PCA in their metric).
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from mnas.arch import Arch
from mnas.nn.blocks import ConvNorm, LayerModule
from mnas.nn.inherit.trace import Trace
from mnas.ops import Convolution

_RIDGE = 0.01  # share of the mean weight that every direction gets, as consumers ignore some


@dataclass(frozen=True, kw_only=True)
class Basis:
    """Maps between a parent's C channels and k channels of a network that is cut from it."""

    encode: Tensor
    """(k, C)."""
    decode: Tensor
    """(C, k)."""
    index: Tensor | None
    """(k,): the channels, where each is one of the parent's; None for a rotation."""


def chosen(importance: Tensor, count: int) -> Basis:
    """Return the `count` most important of the channels, in their order."""
    index = importance.topk(count).indices.sort().values
    identity = torch.eye(len(importance))
    return Basis(encode=identity[index], decode=identity[:, index], index=index)


def rotated(covariance: Tensor, metric: Tensor, count: int) -> Basis:
    """Return the `count` directions of most variance in the metric (C, C) of what consumes the channels."""
    metric = metric.double() + _RIDGE * metric.diagonal().double().mean() * torch.eye(len(metric), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(metric)
    root = vectors @ torch.diag(values.sqrt()) @ vectors.t()
    inverse = vectors @ torch.diag(values.rsqrt()) @ vectors.t()
    axes = torch.linalg.eigh(root @ covariance.double() @ root).eigenvectors.flip(1)[:, :count]
    return Basis(encode=(axes.t() @ root).float(), decode=(inverse @ axes).float(), index=None)


def folded(module: ConvNorm) -> Tensor:
    """Return the kernel (out, in, h, w) with the scale of its batch norm."""
    return module.conv.weight * scale(module)[:, None, None, None]


def scale(module: ConvNorm) -> Tensor:
    """Return the factor (out,) by which the batch norm multiplies; ones without a batch norm."""
    if not hasattr(module, "norm"):
        return torch.ones(module.conv.out_channels)
    norm: nn.BatchNorm2d = module.norm
    assert norm.running_var is not None
    return norm.weight / (norm.running_var + norm.eps).sqrt()


def stem_basis(trace: Trace, count: int) -> Basis:
    """Return the channels of the stem that matter most to the first layer."""
    deviation = trace.after["stem"].variance.sqrt()
    first = trace.network.layers[0]
    assert isinstance(first, LayerModule)
    return chosen(deviation * _weight(_reader(trace, first)), count)


def block_basis(trace: Trace, number: int, count: int) -> Basis:
    """Return the basis of a block's result, from its number (from 1) and the number of channels to have."""
    arch = trace.network.arch
    assert isinstance(arch, Arch)
    block = arch.blocks[number - 1]
    if count == block.filters:
        return chosen(torch.ones(count), count)
    names = [f"block{number}.{index}" for index in range(block.layers)]
    values = torch.cat([trace.rows[name].values for name in names])
    centred = values - values.mean(0)
    covariance = centred.t() @ centred / len(values)
    modules = {module.layer.name: module for module in trace.network.layers if isinstance(module, LayerModule)}
    readers = [modules[name] for name in names[1:]]
    following = f"block{number + 1}.0"
    if following in modules:
        readers.append(modules[following])
        kernels = [_reader(trace, reader) for reader in readers]
    else:
        last = trace.network.classifier.weight if trace.network.head is None else folded(trace.network.head).flatten(1)
        kernels = [*(_reader(trace, reader) for reader in readers), last]
    linear = block.op != "conv" and not block.projection_activation
    if linear and not any(_reads_by_channel(reader) for reader in readers):
        return rotated(covariance, sum(kernel.t() @ kernel for kernel in kernels), count)  # type: ignore[arg-type]
    weight = torch.stack([_weight(kernel).square() for kernel in kernels]).sum(0).sqrt()
    return chosen(covariance.diagonal().sqrt() * weight, count)


def inside_basis(trace: Trace, module: LayerModule, count: int) -> Basis:
    """Return the channels inside a layer that matter most to its projection."""
    before = module.names[module.names.index("project") - 1]
    if before == "se":
        before = module.names[module.names.index("se") - 1]
    deviation = trace.after[f"{module.layer.name}.{before}"].variance.sqrt()
    return chosen(deviation * _weight(folded(part_of(module, "project")).flatten(1)), count)


def head_basis(trace: Trace, count: int) -> Basis:
    """Return the channels of the head that matter most to the classifier."""
    return chosen(trace.after["head"].variance.sqrt() * _weight(trace.network.classifier.weight), count)


def _reads_by_channel(module: LayerModule) -> bool:
    first = module.layer.parts[0]
    return isinstance(first, Convolution) and first.depthwise


def _reader(trace: Trace, module: LayerModule) -> Tensor:
    """Return the maps (rows, C) of a layer's input that its first convolutions are."""
    names = [part.name for part in module.layer.convolutions]
    first = folded(part_of(module, names[0]))
    if not _reads_by_channel(module):
        return first.transpose(1, 3).reshape(-1, first.shape[1])
    kernel: Tensor = torch.linalg.vector_norm(first.flatten(1), dim=1)
    return folded(part_of(module, names[1])).flatten(1) * kernel


def part_of(module: LayerModule, name: str) -> ConvNorm:
    """Return a convolution of a layer by name."""
    return cast(ConvNorm, getattr(module, name))


def _weight(kernel: Tensor) -> Tensor:
    """Return the size of each input channel's weights, (C,)."""
    size: Tensor = torch.linalg.vector_norm(kernel, dim=0)
    return size
