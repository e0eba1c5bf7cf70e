"""Which networks can be cut from another one."""

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.block import Block
from mnas.ops import Layer

_SAME_OF_BLOCK = ("op", "stride", "activation", "projection_activation")
_SAME_OF_ARCH = ("stem_stride", "activation", "padding", "head_pooled", "head_norm", "bn_epsilon")


def require_cut(parent: Architecture, arch: Architecture) -> None:
    """Raise ValueError, naming the place, unless `arch` can be cut from `parent`.

    It then has the parent's blocks, each of the same op and stride with no more layers, output channels and channels
    inside. Kernels and squeeze-and-excitation may differ.
    """
    if not isinstance(parent, Arch) or not isinstance(arch, Arch):
        raise ValueError("a network of cells cannot be cut, only one of blocks")
    parent, arch = parent.canonical(), arch.canonical()
    for name in _SAME_OF_ARCH:
        _require_same(f"{name} of the network", getattr(parent, name), getattr(arch, name))
    _require_same("number of blocks", len(parent.blocks), len(arch.blocks))
    _require_same("presence of a head", bool(parent.head_filters), bool(arch.head_filters))
    _require_most("channels of the stem", parent.stem_filters, arch.stem_filters)
    _require_most("channels of the head", parent.head_filters, arch.head_filters)
    for number, (theirs, ours) in enumerate(zip(parent.blocks, arch.blocks, strict=True), 1):
        _require_block(f"block {number}", theirs, ours)
    for theirs_layer, layer in pairs(parent, arch):
        _require_most(f"channels inside {layer.name}", theirs_layer.mid_filters, layer.mid_filters)


def pairs(parent: Arch, arch: Arch) -> list[tuple[Layer, Layer]]:
    """Return each layer of `arch`, after the layer of `parent` whose weights it gets: the first ones of each block."""
    theirs = {layer.name: layer for layer in parent.layers}
    return [(theirs[layer.name], layer) for layer in arch.layers]


def _require_block(where: str, parent: Block, block: Block) -> None:
    for name in _SAME_OF_BLOCK:
        _require_same(f"{name} of {where}", getattr(parent, name), getattr(block, name))
    for name in ("kernel", "start_kernel"):  # 0: the convolution is absent
        _require_same(f"presence of {name} in {where}", bool(getattr(parent, name)), bool(getattr(block, name)))
    _require_most(f"layers of {where}", parent.layers, block.layers)
    _require_most(f"channels of {where}", parent.filters, block.filters)


def _require_same(what: str, expected: object, value: object) -> None:
    if expected != value:
        raise ValueError(f"{what} must be that of the parent, {expected}, but got {value}")


def _require_most(what: str, most: int, value: int) -> None:
    if value > most:
        raise ValueError(f"{what} must be at most {most}, as in the parent, but got {value}")
