"""An architecture as a torch network."""

import abc
import math
from typing import cast

from torch import Tensor, nn

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.cell_arch import CellArch
from mnas.nn.blocks import ConvNorm, LayerModule
from mnas.nn.cells import Cells


class Network(nn.Module, abc.ABC):
    """A network (N, 3, H, W) float images -> (N, num_classes) logits: features, mean over all pixels, classifier."""

    arch: Architecture
    dropout: nn.Dropout
    classifier: nn.Linear

    @abc.abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return the features (N, channels, H', W') of images (N, 3, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x).mean((2, 3)))

    def classify(self, means: Tensor) -> Tensor:
        """Return the logits of the means (N, channels) of all pixels' features."""
        return cast(Tensor, self.classifier(self.dropout(self.embedding(means))))

    def embedding(self, means: Tensor) -> Tensor:
        """Return the classifier's inputs (N, classifier.in_features) for the means (N, channels), without dropout."""
        return means


class BlockNetwork(Network):
    """A network of `stem`, `layers` (one module for each of `arch.layers`, in order), `head` (if any), `classifier`."""

    def __init__(self, arch: Arch, num_classes: int) -> None:
        super().__init__()
        self.arch = arch
        self.stem = ConvNorm.of(arch, arch.stem)
        self.layers = nn.Sequential(*(LayerModule(layer, arch) for layer in arch.layers))
        self.head = ConvNorm.of(arch, arch.head) if arch.head else None
        self.pooled = arch.head_pooled
        self.dropout = nn.Dropout(arch.dropout)
        self.classifier = nn.Linear(arch.features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        x = self.layers(self.stem(x))
        return self.head(x) if self.head is not None and not self.pooled else x

    def embedding(self, means: Tensor) -> Tensor:
        if self.head is not None and self.pooled:
            means = self.head(means[:, :, None, None]).flatten(1)
        return means


class CellNetwork(Network):
    """A network of `cells` and `classifier`."""

    def __init__(self, arch: CellArch, num_classes: int) -> None:
        super().__init__()
        self.arch = arch
        self.cells = Cells(arch)
        self.dropout = nn.Dropout(arch.skeleton.dropout)
        self.classifier = nn.Linear(self.cells.channels, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.cells(x))


def build_network(arch: Architecture, num_classes: int) -> Network:
    """Return the network of `arch` with fresh weights, drawn from torch's global generator.

    Raises:
        ValueError: num_classes is below 1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more, but got {num_classes}")
    network = CellNetwork(arch, num_classes) if isinstance(arch, CellArch) else BlockNetwork(arch, num_classes)
    network.apply(initialise)
    return network


def initialise(module: nn.Module) -> None:
    """Draw weights as in the published code.

    Convolutions are normal(0, sqrt(2 / fan_out)), the classifier is uniform(+-1 / sqrt(classes)), biases are 0.
    """
    if isinstance(module, nn.Conv2d):
        # TensorFlow's depthwise kernels have shape (k, k, channels, 1), so their published fan-out is k * k.
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
    elif isinstance(module, nn.Linear):
        bound = 1.0 / math.sqrt(module.out_features)
        nn.init.uniform_(module.weight, -bound, bound)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
