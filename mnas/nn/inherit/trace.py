"""The results of a parent on some images, from which networks that are cut from it are solved."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mnas.nn.blocks import ConvNorm, LayerModule, SqueezeExcite
from mnas.nn.network import BlockNetwork

_ROWS = 12_000  # pixels of a layer's result that a projection is solved from
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and variance over images and pixels of each channel, (C,)."""

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A layer's result at some pixels."""

    positions: Tensor
    """(R,): indices into (N, H, W), flattened."""
    values: Tensor
    """(R, C). The layer's result, or that of its projection before an activation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """A parent on some images; all in evaluation mode."""

    network: BlockNetwork
    images: Tensor
    """(N, 3, S, S), normalised."""
    before: dict[str, Moments]
    """`stem`, `block1.0.expand`, ..., `head` -> moments of the convolution's result, before its batch norm."""
    after: dict[str, Moments]
    """The same names -> moments after the activation."""
    gates: dict[str, Tensor]
    """Layer with squeeze-and-excitation -> mean of each channel's gate, (C,)."""
    rows: dict[str, Rows]
    """Layer -> its result."""


def moments_of(x: Tensor) -> Moments:
    """Return the moments of a tensor (N, C, H, W), which is fastest with channels last."""
    rows = pixel_rows(x)
    mean = rows.mean(0)
    return Moments(mean=mean, variance=(rows - mean).square_().mean(0))


class _Pool:
    """The moments of a tensor (N, C, H, W) that comes in batches."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, Moments]] = []

    def add(self, x: Tensor) -> None:
        self.parts.append((x.numel() // x.shape[1], moments_of(x)))

    def moments(self) -> Moments:
        share = torch.tensor([count for count, _ in self.parts], dtype=torch.float64)[:, None]
        share /= share.sum()
        means = torch.stack([part.mean for _, part in self.parts]).double()
        variances = torch.stack([part.variance for _, part in self.parts]).double()
        mean = (share * means).sum(0)
        variance = (share * (variances + (means - mean).square())).sum(0)
        return Moments(mean=mean.float(), variance=variance.float())


class _Collector:
    def __init__(self, network: BlockNetwork, images: Tensor, seed: int) -> None:
        self.network, self.images = network, images
        self.before: dict[str, _Pool] = {}
        self.after: dict[str, _Pool] = {}
        self.gates: dict[str, _Pool] = {}
        self.values: dict[str, list[Tensor]] = {}
        self.positions: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(seed)

    def batch(self, start: int) -> None:
        network = self.network
        x = self.conv("stem", network.stem, self.images[start : start + _BATCH])
        for module in network.layers:
            assert isinstance(module, LayerModule)
            x = self.layer(module, x, start)
        if network.head is not None:
            self.conv("head", network.head, x.mean((2, 3), keepdim=True) if network.pooled else x)

    def layer(self, module: LayerModule, x: Tensor, start: int) -> Tensor:
        layer, y = module.layer, x
        for name in module.names:
            part = getattr(module, name)
            if isinstance(part, SqueezeExcite):
                gate = part.gate(y)
                self.gates.setdefault(layer.name, _Pool()).add(gate)
                y = y * gate
            else:
                if name == "project" and layer.projection_activation:
                    self.keep(layer.name, part.norm(part.conv(y)), start)
                y = self.conv(f"{layer.name}.{name}", part, y)
        skipped = module.skipped(x)
        result = y if skipped is None else y + skipped
        if not layer.projection_activation:
            self.keep(layer.name, result, start)
        return result

    def conv(self, name: str, module: ConvNorm, x: Tensor) -> Tensor:
        y: Tensor = module.conv(x)
        self.before.setdefault(name, _Pool()).add(y)
        for part in list(module)[1:]:
            y = part(y)
        self.after.setdefault(name, _Pool()).add(y)
        return y

    def keep(self, name: str, x: Tensor, start: int) -> None:
        """Keep some pixels of the batch that starts with image `start`; the same ones of all batches together."""
        count, pixels = len(x), x[0, 0].numel()
        if name not in self.positions:
            total = len(self.images) * pixels
            chosen = torch.randperm(total, generator=self.generator)[:_ROWS]
            self.positions[name] = chosen.sort().values
        positions = self.positions[name]
        here = positions[(positions >= start * pixels) & (positions < (start + count) * pixels)] - start * pixels
        self.values.setdefault(name, []).append(pixel_rows(x)[here])


@torch.no_grad()
def trace(network: BlockNetwork, images: Tensor, seed: int = 0) -> Trace:
    """Return what a network computes on images.

    Args:
        network: the parent, which is put into evaluation mode.
        images: normalised images (N, 3, S, S), on the CPU, N at least 1.
        seed: seed of the choice of pixels.

    Raises:
        ValueError: the network is not one of blocks.
    """
    if not isinstance(network, BlockNetwork):
        raise ValueError("a network of cells cannot be cut, only one of blocks")
    network.eval()
    images = images.contiguous(memory_format=torch.channels_last)
    collector = _Collector(network, images, seed)
    for start in range(0, len(images), _BATCH):
        collector.batch(start)
    return Trace(
        network=network,
        images=images,
        before={name: pool.moments() for name, pool in collector.before.items()},
        after={name: pool.moments() for name, pool in collector.after.items()},
        gates={name: pool.moments().mean for name, pool in collector.gates.items()},
        rows={
            name: Rows(positions=collector.positions[name], values=torch.cat(values))
            for name, values in collector.values.items()
        },
    )


def pixel_rows(x: Tensor) -> Tensor:
    """Return (N, C, H, W) as (N * H * W, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
