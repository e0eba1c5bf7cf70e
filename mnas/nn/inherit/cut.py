"""A network cut from a parent, with its weights: least squares, layer by layer, so that its features stay the parent's.

The kept layers of a block are its first ones. Channels are chosen, or rotated where a block's result is linear
(`mnas.nn.inherit.bases`). Kernels are cropped at, or padded with zeros around, their centre. Every batch norm gets the
moments of the parent's, and every projection is solved by ridge regression so that the layer's result, the skip
included, equals that of the parent; the last kept layer of a block aims at the block's end. An added
squeeze-and-excitation begins with equal gates. Where nothing is cut, the function is the parent's, to rounding.

Source: the layer-wise reconstruction of ThiNet (Luo et al., arXiv:1707.06342) and of He, Zhang, Sun, "Channel Pruning
for Accelerating Very Deep Neural Networks" (arXiv:1707.06168).
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnas.arch import Arch
from mnas.nn.blocks import ConvNorm, LayerModule, SqueezeExcite
from mnas.nn.inherit.bases import (
    Basis,
    block_basis,
    chosen,
    folded,
    head_basis,
    inside_basis,
    part_of,
    scale,
    stem_basis,
)
from mnas.nn.inherit.cuts import pairs, require_cut
from mnas.nn.inherit.trace import Moments, Rows, Trace, moments_of, pixel_rows
from mnas.nn.network import BlockNetwork, build_network

_RIDGE = 0.02  # share of the mean variance of the inputs
_MOST_GAIN = 10.0  # limit of the factor that restores a channel's deviation; dead channels would have any
_LEAST_VARIANCE = 1e-6  # in mean variances of the parent's channels


@torch.no_grad()
def cut(trace: Trace, arch: Arch) -> BlockNetwork:
    """Return the network of `arch` with the weights of the traced parent, in evaluation mode.

    The same trace and architecture give the same bits on one processor with the same number of threads.

    Raises:
        ValueError: `arch` cannot be cut from the parent, and why.
    """
    parent = trace.network
    assert isinstance(parent.arch, Arch)
    require_cut(parent.arch, arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for the first weights of added squeeze-and-excitation
        network = cast(BlockNetwork, build_network(arch, parent.classifier.out_features))
    network.to(memory_format=torch.channels_last).eval()
    layers = {module.layer.name: module for module in parent.layers if isinstance(module, LayerModule)}
    basis = stem_basis(trace, arch.stem_filters)
    x = _copied(trace, "stem", network.stem, parent.stem, trace.images, None, basis.index)
    sources = pairs(parent.arch, arch)
    for module, (source, layer) in zip(network.layers, sources, strict=True):
        assert isinstance(module, LayerModule)
        number, index = (int(part) for part in layer.name.removeprefix("block").split("."))
        last = index == arch.blocks[number - 1].layers - 1
        after = block_basis(trace, number, layer.out_filters)
        at_end = last and not (source.projection_activation and layer.skip != "none")
        aim = f"block{number}.{parent.arch.blocks[number - 1].layers - 1}" if at_end else source.name
        x = _Layer(trace, layers[source.name], module, basis, after).solved(x, trace.rows[aim])
        basis = after
    _finish(trace, network, x, basis)
    return network


class _Layer:
    """A layer of the new network, the parent's layer that it comes from, and the bases before and after it."""

    def __init__(self, trace: Trace, source: LayerModule, module: LayerModule, before: Basis, after: Basis) -> None:
        self.trace, self.source, self.module, self.before, self.after = trace, source, module, before, after
        self.name = source.layer.name
        self.inside = before
        """Basis of the channels that the next part reads."""
        self.factor: Tensor | float = 1.0
        """Factor that the projection's inputs need to be those of the parent."""

    def solved(self, x: Tensor, aim: Rows) -> Tensor:
        """Set all weights; return the layer's result for its input `x` (N, in_filters, H, W)."""
        y = x
        for name in self.module.names:
            part = getattr(self.module, name)
            if isinstance(part, SqueezeExcite):
                y = self._squeezed(part, y)
            elif name == "project":
                y = self._projected(part, y, x, aim)
            else:
                y = self._convolved(name, part, y)
        skipped = self.module.skipped(x)
        return (y if skipped is None else y + skipped).contiguous(memory_format=torch.channels_last)

    def _convolved(self, name: str, part: ConvNorm, x: Tensor) -> Tensor:
        source = part_of(self.source, name)
        if name == "conv":
            outputs = self.after
        elif name == "expand":
            outputs = inside_basis(self.trace, self.source, part.conv.out_channels)
        else:  # depthwise
            outputs = self.inside
        inputs = None if part.conv.groups > 1 or self.inside is outputs else self.inside.decode
        if name == "start":
            inputs = None
        y = _copied(self.trace, f"{self.name}.{name}", part, source, x, inputs, outputs.index)
        self.inside = outputs
        return y

    def _squeezed(self, part: SqueezeExcite, x: Tensor) -> Tensor:
        index = self.inside.index
        assert index is not None
        if hasattr(self.source, "se"):
            _copy_gate(part, cast(SqueezeExcite, self.source.se), index, self._mean_before_gate())
        else:
            part.expand.weight.zero_()
            nn.init.zeros_(part.expand.bias)  # type: ignore[arg-type]
            nn.init.zeros_(part.reduce.bias)  # type: ignore[arg-type]
            self.factor = 2.0  # both gates are a half at 0
        return part(x)  # type: ignore[no-any-return]

    def _mean_before_gate(self) -> Tensor:
        return self.trace.after[f"{self.name}.{self.source.names[self.source.names.index('se') - 1]}"].mean

    def _projected(self, part: ConvNorm, a: Tensor, x: Tensor, aim: Rows) -> Tensor:
        """Solve the projection of `a` so that the layer's result is the aim."""
        index = self.inside.index
        assert index is not None
        wanted = aim.values @ self.after.encode.t()
        skipped = self.module.skipped(x)
        if skipped is not None and not self.module.layer.projection_activation:
            wanted = wanted - pixel_rows(skipped)[aim.positions]
        if hasattr(self.source, "se") and not hasattr(self.module, "se"):
            self.factor = self.trace.gates[self.name][index]
        start = (self.after.encode @ folded(part_of(self.source, "project")).flatten(1))[:, index] * self.factor
        weight, shift = _ridge(pixel_rows(a)[aim.positions], wanted, start)
        return _put(part, a, weight, shift)


def _copied(
    trace: Trace, name: str, module: ConvNorm, source: ConvNorm, x: Tensor, inputs: Tensor | None, index: Tensor | None
) -> Tensor:
    """Give a convolution the parent's weights and moments; return its result.

    Args:
        inputs: (C, k), from the channels that it reads to the parent's; None: the parent's, or those of `index` for a
            depthwise convolution.
        index: the parent's channels that it computes.
    """
    assert index is not None
    kernel = _fitted(source.conv.weight[index], module.conv.kernel_size[0])
    if inputs is not None:
        kernel = torch.einsum("ochw,ck->okhw", kernel, inputs)
    module.conv.weight.copy_(kernel)
    if not hasattr(module, "norm"):
        assert module.conv.bias is not None
        module.conv.bias.zero_()
    z = module.conv(x)
    ours = moments_of(z)
    theirs = trace.before[name]
    gain = _gain(ours.variance, Moments(mean=theirs.mean[index], variance=theirs.variance[index]))
    if hasattr(module, "norm"):
        before: nn.BatchNorm2d = source.norm
        assert before.running_mean is not None
        factor = scale(source)[index]
        shift = before.bias[index] + factor * (theirs.mean - before.running_mean)[index]
        _set_norm(module.norm, ours, factor * gain, shift)
        y: Tensor = module.norm(z)
    else:
        module.conv.weight.mul_(gain[:, None, None, None])
        module.conv.bias.copy_(theirs.mean[index] - gain * ours.mean)  # type: ignore[union-attr]
        y = module.conv(x)
    return cast(Tensor, module.activation(y)) if hasattr(module, "activation") else y


def _gain(variance: Tensor, theirs: Moments) -> Tensor:
    """Return the factor that gives each channel the parent's deviation."""
    least = _LEAST_VARIANCE * theirs.variance.mean() + torch.finfo(torch.float32).tiny
    return ((theirs.variance + least) / (variance + least)).sqrt().clamp(max=_MOST_GAIN)


def _set_norm(norm: nn.BatchNorm2d, statistics: Moments, factor: Tensor, shift: Tensor) -> None:
    """Let a batch norm be factor * (z - mean) + shift, with these statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(statistics.mean)
    norm.running_var.copy_(statistics.variance)
    norm.weight.copy_(factor * (statistics.variance + norm.eps).sqrt())
    norm.bias.copy_(shift)


def _put(module: ConvNorm, a: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    """Let a projection be `weight` (out, in) @ a + `shift`, and return its result."""
    module.conv.weight.copy_(weight[:, :, None, None])
    z = module.conv(a)
    ours = moments_of(z)
    _set_norm(module.norm, ours, torch.ones_like(ours.mean), shift + ours.mean)
    y = module.norm(z)
    return module.activation(y) if hasattr(module, "activation") else y  # type: ignore[no-any-return]


def _ridge(rows: Tensor, wanted: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight (out, in) and shift (out,) so that rows @ weight.T + shift is about `wanted`; weight near `start`.

    Args:
        rows: (R, in).
        wanted: (R, out).
        start: (out, in), which the ridge draws the weight to.
    """
    mean, aim = rows.mean(0), wanted.mean(0)
    centred = rows - mean
    gram = centred.t() @ centred
    width = gram.shape[0]
    ridge = _RIDGE * gram.diagonal().mean() * max(1.0, 4 * width / len(rows))
    rest = (wanted - aim) - centred @ start.t()
    gram.diagonal().add_(ridge + torch.finfo(torch.float32).tiny)
    weight = start + torch.linalg.solve(gram, centred.t() @ rest).t()
    return weight, aim - weight @ mean


def _fitted(kernel: Tensor, side: int) -> Tensor:
    """Return the kernel (..., k, k) cropped or padded with zeros to `side`, with the same centre."""
    surplus = kernel.shape[-1] - side
    return F.pad(kernel, (-surplus // 2,) * 4) if surplus else kernel


def _copy_gate(part: SqueezeExcite, source: SqueezeExcite, index: Tensor, mean: Tensor) -> None:
    """Give squeeze-and-excitation the weights of the most important squeezed channels; absent ones count as their mean.

    Args:
        index: the parent's channels that it scales.
        mean: (C,), mean of each of the parent's channels before the gate.
    """
    importance = source.reduce.weight.flatten(1).norm(dim=1) * source.expand.weight.flatten(1).norm(dim=0)
    count = min(part.reduce.out_channels, len(importance))
    squeezed = chosen(importance, count).index
    assert squeezed is not None
    for parameter in (*part.reduce.parameters(), *part.expand.parameters()):
        parameter.zero_()
    reduce = source.reduce.weight[squeezed]
    absent = torch.ones(len(mean)).index_fill(0, index, 0.0)
    part.reduce.weight[:count] = reduce[:, index]
    part.reduce.bias[:count] = source.reduce.bias[squeezed] + reduce.flatten(1) @ (mean * absent)  # type: ignore[index]
    part.expand.weight[:, :count] = source.expand.weight[index][:, squeezed]
    part.expand.bias.copy_(source.expand.bias[index])  # type: ignore[union-attr, index]


def _finish(trace: Trace, network: BlockNetwork, x: Tensor, basis: Basis) -> None:
    """Set the head, if any, and the classifier; the mean of absent features goes into its bias."""
    parent = trace.network
    arch = network.arch
    assert isinstance(arch, Arch)
    if network.head is not None:
        assert parent.head is not None
        features = head_basis(trace, arch.head_filters)
        means = x.mean((2, 3), keepdim=True) if network.pooled else x
        _copied(trace, "head", network.head, parent.head, means, basis.decode, features.index)
        mean = trace.after["head"].mean
        assert features.index is not None
        absent = torch.ones(len(mean)).index_fill(0, features.index, 0.0)
        network.classifier.weight.copy_(parent.classifier.weight[:, features.index])
        network.classifier.bias.copy_(parent.classifier.bias + parent.classifier.weight @ (mean * absent))
    else:
        network.classifier.weight.copy_(parent.classifier.weight @ basis.decode)
        network.classifier.bias.copy_(parent.classifier.bias)
