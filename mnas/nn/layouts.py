"""Layouts of state dicts: the names of the same tensors in timm, torchvision, pytorchcv and mnas.

A layout maps each module of mnas with tensors (`layers.3.depthwise.conv`, `layers.3.depthwise.norm`) to its name in
another implementation; the tensors in it (`weight`, `running_mean`, ...) have the same names everywhere.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from mnas.arch import Arch, Padding
from mnas.ops import Convolution, Layer, Squeeze


@dataclass(frozen=True, kw_only=True)
class StateDictLayout:
    """The layout of one implementation's state dict."""

    title: str
    """Name of the implementation, for messages."""
    mark: str
    """Name of a tensor that no later layout has."""
    modules: Callable[[Arch, Collection[str]], dict[str, str]]
    """Function from an architecture and the tensors' names to {our module: its name there}, without modules that cannot
    exist there."""
    bn_momentum: float | None
    """Batch-norm momentum in that implementation's training; None for ours, which uses the architecture's."""
    bn_epsilon: float = 1e-5
    padding: Padding = "symmetric"


def layout_of(tensors: Collection[str]) -> StateDictLayout | None:
    """Return the layout of these tensor names, the first with its mark, or None if no layout fits."""
    return next((layout for layout in LAYOUTS if layout.mark in tensors), None)


def trained_arch(arch: Arch, layout: StateDictLayout, *, small: bool, padding: Padding, bn_epsilon: float) -> Arch:
    """Return `arch` as the layout's implementation computes it: with its padding, batch-norm epsilon and momentum.

    Args:
        small: whether `arch` is MnasNet-small, whose first layer has a residual in timm and pytorchcv but not in the
            published code (which states 16 input filters although the stem has 8).
        padding, bn_epsilon: those of the source model, as the implementation may have models of several kinds.
    """
    if layout.bn_momentum is None:
        return arch
    if small:
        arch = replace(arch, blocks=(replace(arch.blocks[0], skip="identity"), *arch.blocks[1:]))
    return replace(arch, padding=padding, bn_epsilon=bn_epsilon, bn_momentum=layout.bn_momentum)


def _ours(arch: Arch, tensors: Collection[str]) -> dict[str, str]:
    names = ["stem.conv", "stem.norm", "head.conv", "head.norm", "classifier"]
    for index, layer in enumerate(arch.layers):
        names += [f"layers.{index}.{conv.name}.{kind}" for conv in layer.convolutions for kind in ("conv", "norm")]
        names += [f"layers.{index}.se.{part}" for part in ("reduce", "expand") if layer.se_filters]
    return {name: name for name in names}


def _timm(arch: Arch, tensors: Collection[str]) -> dict[str, str]:
    """Return timm's names; its stages may have blocks of several kinds, so the tensors tell where a stage ends."""
    head_norm = "norm_head" if arch.head_pooled else "bn2"
    names = {"stem.conv": "conv_stem", "stem.norm": "bn1", "head.conv": "conv_head", "head.norm": head_norm}
    places = {(int(m[1]), int(m[2])) for name in tensors if (m := re.match(r"blocks\.(\d{1,3})\.(\d{1,3})\.", name))}
    for index, (block, layer) in enumerate(sorted(places) if len(places) == len(arch.layers) else _places(arch)):
        convolutions = enumerate(arch.layers[index].convolutions, 1)
        parts = {
            conv.name: (conv.timm, f"{conv.timm.partition('.')[0]}.bn" if "." in conv.timm else f"bn{number}")
            for number, conv in convolutions
        }
        names |= _layer(index, parts, f"blocks.{block}.{layer}")
        names |= {
            f"layers.{index}.se.{part}": f"blocks.{block}.{layer}.se.conv_{part}" for part in ("reduce", "expand")
        }
    return names | {"classifier": "classifier"}


def _torchvision_mnasnet(arch: Arch, tensors: Collection[str]) -> dict[str, str]:
    """Return the names of torchvision's one list of layers; the blocks after the first, a sepconv, are nested lists."""
    parts = {"expand": ("0", "1"), "depthwise": ("3", "4"), "project": ("6", "7")}
    head = 7 + len(arch.blocks)
    names = {"stem.conv": "layers.0", "stem.norm": "layers.1"}
    names |= _layer(0, {"depthwise": ("3", "4"), "project": ("6", "7")}, "layers")
    for index, (block, layer) in enumerate(_places(arch)):
        if block > 0:
            names |= _layer(index, parts, f"layers.{7 + block}.{layer}.layers")
    return names | {"head.conv": f"layers.{head}", "head.norm": f"layers.{head + 1}", "classifier": "classifier.1"}


def _torchvision_mobilenetv2(arch: Arch, tensors: Collection[str]) -> dict[str, str]:
    head = f"features.{len(arch.layers) + 1}"
    names = {"stem.conv": "features.0.0", "stem.norm": "features.0.1"}
    for index, layer in enumerate(arch.layers):
        parts = {
            conv.name: (f"{place}", f"{place + 1}") if conv.linear else (f"{place}.0", f"{place}.1")
            for place, conv in enumerate(layer.convolutions)
        }
        if layer.convolutions[-1].linear:  # its layers all end with a projection
            names |= _layer(index, parts, f"features.{index + 1}.conv")
    return names | {"head.conv": f"{head}.0", "head.norm": f"{head}.1", "classifier": "classifier.1"}


def _torchvision_mobilenetv3(arch: Arch, tensors: Collection[str]) -> dict[str, str]:
    """Return the names of torchvision's MobileNetV3, whose layers are all in one list; its head is a linear layer."""
    names = {"stem.conv": "features.0.0", "stem.norm": "features.0.1"}
    for index, layer in enumerate(arch.layers):
        place = f"features.{index + 1}"
        names |= (
            _layer(index, {"conv": ("0", "1")}, place)
            if layer.op == "conv"
            else _torchvision_block(index, layer, place)
        )
    return names | {"head.conv": "classifier.0", "classifier": "classifier.3"}


def _torchvision_efficientnet(arch: Arch, tensors: Collection[str]) -> dict[str, str]:
    head = f"features.{len(arch.blocks) + 1}"
    names = {"stem.conv": "features.0.0", "stem.norm": "features.0.1"}
    for index, (block, place) in enumerate(_places(arch)):
        names |= _torchvision_block(index, arch.layers[index], f"features.{block + 1}.{place}")
    return names | {"head.conv": f"{head}.0", "head.norm": f"{head}.1", "classifier": "classifier.1"}


def _torchvision_block(index: int, layer: Layer, prefix: str) -> dict[str, str]:
    """Return the names of an inverted bottleneck, a list of its parts."""
    names: dict[str, str] = {}
    for place, part in enumerate(layer.parts):
        if isinstance(part, Convolution):
            names |= _layer(index, {part.name: (f"{place}.0", f"{place}.1")}, f"{prefix}.block")
        elif isinstance(part, Squeeze):
            names |= {
                f"layers.{index}.se.{end}": f"{prefix}.block.{place}.fc{n}" for n, end in ((1, "reduce"), (2, "expand"))
            }
    return names


def _efficientnet_pytorch(arch: Arch, tensors: Collection[str]) -> dict[str, str]:
    names = {"stem.conv": "_conv_stem", "stem.norm": "_bn0", "head.conv": "_conv_head", "head.norm": "_bn1"}
    for index, layer in enumerate(arch.layers):
        norms = range(3 - len(layer.convolutions), 3)  # an expansion has norm 0
        for conv, norm in zip(layer.convolutions, norms, strict=True):
            parts = {conv.name: (f"_{conv.name}_conv", f"_bn{norm}")}
            names |= _layer(index, parts, f"_blocks.{index}")
        names |= {f"layers.{index}.se.{part}": f"_blocks.{index}._se_{part}" for part in ("reduce", "expand")}
    return names | {"classifier": "_fc"}


def _pytorchcv(arch: Arch, tensors: Collection[str]) -> dict[str, str]:
    """Return pytorchcv's names: a stage begins at each stride; the first and last layers belong to stem and head."""
    parts = {
        part: (f"{name}.conv", f"{name}.bn")
        for part, name in (("expand", "exp_conv"), ("depthwise", "dw_conv"), ("project", "pw_conv"))
    }
    names: dict[str, str] = {}
    stage = unit = 0
    for index, layer in enumerate(arch.layers):
        stage, unit = (stage + 1, 1) if layer.stride == 2 else (stage, unit + 1)
        place = f"stage{stage}.unit{unit}"
        if index in (0, len(arch.layers) - 1):
            place = "final_block.conv1" if index else "init_block.conv2"
        names |= _layer(index, parts, f"features.{place}")
        names |= {f"layers.{index}.se.reduce": f"features.{place}.se.conv1"}
        names |= {f"layers.{index}.se.expand": f"features.{place}.se.conv2"}
    for part, place in (("stem", "init_block.conv1"), ("head", "final_block.conv2")):
        names |= {f"{part}.conv": f"features.{place}.conv", f"{part}.norm": f"features.{place}.bn"}
    return names | {"classifier": "output"}


def _places(arch: Arch) -> list[tuple[int, int]]:
    """Return (block, layer in it) of each layer, both counted from 0."""
    return [(b, i) for b, block in enumerate(arch.blocks) for i in range(block.layers)]


def _layer(index: int, parts: dict[str, tuple[str, str]], prefix: str) -> dict[str, str]:
    """Return {our module: theirs} of a layer from part -> (convolution, norm); extra parts do no harm."""
    return {
        f"layers.{index}.{part}.{kind}": f"{prefix}.{name}"
        for part, names in parts.items()
        for kind, name in zip(("conv", "norm"), names, strict=True)
    }


LAYOUTS = (
    StateDictLayout(title="mnas", mark="stem.conv.weight", modules=_ours, bn_momentum=None),
    StateDictLayout(title="timm", mark="conv_stem.weight", modules=_timm, bn_momentum=0.1),
    StateDictLayout(
        title="torchvision's MNASNet",
        mark="layers.0.weight",
        modules=_torchvision_mnasnet,
        bn_momentum=1 - 0.9997,
    ),
    StateDictLayout(
        title="torchvision's MobileNetV3",
        mark="features.1.block.0.0.weight",
        modules=_torchvision_mobilenetv3,
        bn_momentum=0.01,
        bn_epsilon=1e-3,
    ),
    StateDictLayout(
        title="torchvision's EfficientNet",
        mark="features.1.0.block.0.0.weight",
        modules=_torchvision_efficientnet,
        bn_momentum=0.1,
    ),
    StateDictLayout(  # its mark is also in the two above, which come first
        title="torchvision's MobileNetV2",
        mark="features.0.0.weight",
        modules=_torchvision_mobilenetv2,
        bn_momentum=0.1,
    ),
    StateDictLayout(
        title="pytorchcv",
        mark="features.init_block.conv1.conv.weight",
        modules=_pytorchcv,
        bn_momentum=0.1,
    ),
    StateDictLayout(
        title="EfficientNet-PyTorch",
        mark="_conv_stem.weight",
        modules=_efficientnet_pytorch,
        bn_momentum=0.01,
        bn_epsilon=1e-3,
        padding="same",
    ),
)
