"""Map a published network to the nearest member of a space."""

import math
from dataclasses import replace
from typing import Any

from mnas.arch import Arch
from mnas.block import Block
from mnas.space.factorized import FactorizedSpace
from mnas.space.skeleton import MOBILENETV2, MOBILENETV4

NEAR = 1.1
"""Largest factor between a published width and the nearest one in a space.

In the paper's space, the 112 filters of MnasNet-A1 become 120."""


def nearest_member(space: FactorizedSpace, published: Arch) -> Arch:
    """Return the member of `space` that corresponds to `published` on the space's skeleton, in canonical form.

    Operations, kernels, squeeze-and-excitation, skips and numbers of layers are those of `published`. A width is the
    space's nearest to the same multiple of the skeleton's that the published width is of MobileNetV2's, or of
    MobileNetV4's where the space has as many blocks. Stem, head, strides and activation are the skeleton's. MobileNetV2
    thus becomes the reference model, except for its activation. In a space with as many blocks as MobileNetV4, two
    convolutions in a row become the fused block that computes the same.

    Raises:
        ValueError: the space has no such member; one line with the block and the missing choice.
    """
    family, widths, blocks = "MobileNetV2", MOBILENETV2.filters, published.blocks
    if space.blocks == len(MOBILENETV4.filters):
        family, widths, blocks = "MobileNetV4", MOBILENETV4.filters, _fused(published)
    if not len(blocks) == len(widths) == space.blocks:
        raise ValueError(
            f"networks of space {space.name} have {space.blocks} blocks, but this one has {len(published.blocks)}"
        )
    members = []
    for number, block in enumerate(blocks):
        share = block.filters / widths[number]
        offered = space.block_choices[number].filters
        nearest = min(offered, key=lambda width: abs(math.log(width / share)))
        if not 1 / NEAR <= nearest / share <= NEAR:
            raise ValueError(
                f"block {number + 1} is {share:.2f} times as wide as {family}'s, but space {space.name} offers "
                f"{', '.join(f'{width:g}' for width in offered)} times the skeleton's"
            )
        width, stride = space.filters(number, nearest), space.skeleton.strides[number]
        members.append(replace(block, filters=width, stride=stride))
    return space.decode(space.encode(space.skeleton.arch(members)))


def _fused(arch: Arch) -> tuple[Block, ...]:
    """Return the blocks of the same network in which a convolution and a 1x1 convolution after it are a fused block."""
    blocks: list[Block] = []
    inputs = [arch.stem_filters, *(block.filters for block in arch.blocks)]
    for number, block in enumerate(arch.canonical().blocks):
        first = blocks[-1] if blocks else block
        plain = {"op": "conv", "skip": "none", "layers": 1, "se_ratio": 0.0, "activation": first.activation}
        alike = all(getattr(each, name) == value for each in (first, block) for name, value in plain.items())
        if blocks and alike and block.kernel == 1 and block.stride == 1 and first.kernel > 1:
            channels, middle = inputs[number - 1], first.filters
            inside = {"mid_filters": middle} if middle % channels else {"expansion": middle // channels}
            fused: dict[str, Any] = {"op": "fused", "filters": block.filters, "projection_activation": True, **inside}
            blocks[-1] = replace(first, **fused)
        else:
            blocks.append(block)
    return tuple(blocks)
