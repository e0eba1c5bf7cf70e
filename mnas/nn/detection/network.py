"""A detector as a torch network: SSDLite on any backbone of blocks (sources in mnas.nn.detection.parts)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mnas.arch import Arch
from mnas.detector import Detector, DetectorMetadata
from mnas.nn.blocks import ConvNorm, LayerModule
from mnas.nn.detection.parts import extra_layer, map_channels, predicted, prediction, taps
from mnas.nn.network import BlockNetwork, Network, initialise
from mnas.ops import Convolution

_BN_EPSILON, _BN_MOMENTUM = 1e-3, 0.03
_DEVIATION = 0.03  # of initial weights outside the backbone


class Backbone(nn.Module):
    """Stem, layers and head of a `BlockNetwork`: images (N, 3, S, S) -> its maps, from the finest."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        arch = detector.arch
        self.stem = ConvNorm.of(arch, arch.stem)
        self.layers = nn.ModuleList(LayerModule(layer, arch) for layer in arch.layers)
        self.head = ConvNorm.of(arch, arch.head) if arch.head and not arch.head_pooled else None
        self.taps = {tap.layer: tap.parts for tap in taps(detector)}
        self.apply(initialise)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        x = self.stem(x)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, LayerModule)
            if index in self.taps:
                tap, x = layer.tapped(x, self.taps[index])
                maps.append(tap)
            else:
                x = layer(x)
        return [*maps, x if self.head is None else self.head(x)]


class DetectorNetwork(nn.Module):
    """Images (N, 3, S, S), normalised -> logits (N, A, 1 + num_classes) and offsets (N, A, 4) of A default boxes.

    Class 0 is the background. The order of the boxes is that of `Detector.default_boxes`; for offsets see
    mnas.nn.detection.decoding.
    """

    default_boxes: Tensor

    def __init__(self, detector: Detector, num_classes: int) -> None:
        super().__init__()
        self.detector, self.num_classes = detector, num_classes
        arch = replace(detector.arch, bn_epsilon=_BN_EPSILON, bn_momentum=_BN_MOMENTUM)
        channels = map_channels(detector)
        first = len(channels) - len(detector.extra_filters)
        self.backbone = Backbone(detector)
        self.extra = nn.ModuleList(
            _chain(arch, extra_layer(*channels[i - 1 : i + 1])) for i in range(first, len(channels))
        )
        self.predict = nn.ModuleList(
            nn.ModuleDict({name: _chain(arch, prediction(inputs, outputs)) for name, outputs in predictions})
            for inputs, predictions in zip(channels, predicted(detector, num_classes), strict=True)
        )
        for module in (self.extra, self.predict):
            module.apply(_initialise)
        # Not stored in files, as it follows from the detector.
        self.register_buffer("default_boxes", torch.from_numpy(detector.default_boxes), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.backbone(images)
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        return self._predicted("classes", maps, 1 + self.num_classes), self._predicted("offsets", maps, 4)

    def _predicted(self, name: str, maps: Sequence[Tensor], values: int) -> Tensor:
        parts = []
        for module, x in zip(self.predict, maps, strict=True):
            assert isinstance(module, nn.ModuleDict)
            # torch.export would treat len(x) as constant
            parts.append(module[name](x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, values))
        return torch.cat(parts, dim=1)


def build_detector(detector: Detector, num_classes: int) -> DetectorNetwork:
    """Return the network of a detector with fresh weights, drawn from torch's global generator.

    Args:
        num_classes: number of classes without the background.

    Raises:
        ValueError: num_classes is below 1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more, but got {num_classes}")
    return DetectorNetwork(detector, num_classes)


def require_metadata(network: DetectorNetwork, metadata: DetectorMetadata) -> None:
    """Raise ValueError unless the metadata are those of this detector and have a name for each of its classes."""
    if metadata.detector != network.detector:
        raise ValueError(
            f"metadata must describe detector {network.detector.fingerprint}, but got {metadata.detector.fingerprint}"
        )
    if len(metadata.classes) != network.num_classes:
        raise ValueError(f"classes must have {network.num_classes} names, but got {len(metadata.classes)}")


def load_backbone(network: DetectorNetwork, source: Network | DetectorNetwork) -> None:
    """Copy the weights and batch-norm statistics of the backbone from a classification network or another detector.

    Weights by other authors may have another padding or batch norm than the named network (mnas.nn.pretrained), so
    build the detector from the `arch` of the loaded network.

    Raises:
        ValueError: the source is another architecture, apart from dropout and a hidden layer after the average pool.
    """
    wanted = network.detector.arch
    arch = source.detector.arch if isinstance(source, DetectorNetwork) else source.arch
    if not isinstance(arch, Arch) or _features_only(arch) != _features_only(wanted):
        raise ValueError(
            f"weights for the backbone must be those of architecture {wanted.fingerprint}, but got {arch.fingerprint}"
        )
    module = source.backbone if isinstance(source, DetectorNetwork) else source
    assert isinstance(module, Backbone | BlockNetwork)
    names = network.backbone.state_dict().keys()
    network.backbone.load_state_dict({name: t for name, t in module.state_dict().items() if name in names})


def _features_only(arch: Arch) -> Arch:
    """Return the architecture without what follows its features."""
    arch = replace(arch.canonical(), dropout=0.0)
    return replace(arch, head_filters=0, head_pooled=False, head_norm=True) if arch.head_pooled else arch


def _chain(arch: Arch, parts: tuple[Convolution, ...]) -> nn.Module:
    chain = nn.Sequential()
    for part in parts:
        chain.add_module(part.name, ConvNorm.of(arch, part))
    return chain


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=_DEVIATION)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
