"""Map a published network to the nearest member of a space."""

import math
from dataclasses import replace

from mnas.arch import Arch
from mnas.space.factorized import FactorizedSpace
from mnas.space.skeleton import MOBILENETV2

NEAR = 1.1
"""Largest factor between a published width and the nearest one in a space.

In the paper's space, the 112 filters of MnasNet-A1 become 120."""


def nearest_member(space: FactorizedSpace, published: Arch) -> Arch:
    """Return the member of `space` that corresponds to `published` on the space's skeleton, in canonical form.

    Operations, kernels, squeeze-and-excitation, skips and numbers of layers are those of `published`. A width is the
    space's nearest to the same multiple of the skeleton's that the published width is of MobileNetV2's. Stem, head,
    strides and activation are the skeleton's. MobileNetV2 thus becomes the reference model, except for its activation.

    Raises:
        ValueError: the space has no such member; one line with the block and the missing choice.
    """
    if not len(published.blocks) == len(MOBILENETV2.filters) == space.blocks:
        raise ValueError(
            f"networks of space {space.name} have {space.blocks} blocks, but this one has {len(published.blocks)}"
        )
    blocks = []
    for number, block in enumerate(published.blocks):
        share = block.filters / MOBILENETV2.filters[number]
        offered = space.block_choices[number].filters
        nearest = min(offered, key=lambda width: abs(math.log(width / share)))
        if not 1 / NEAR <= nearest / share <= NEAR:
            raise ValueError(
                f"block {number + 1} is {share:.2f} times as wide as MobileNetV2's, but space {space.name} offers "
                f"{', '.join(f'{width:g}' for width in offered)} times the skeleton's"
            )
        width, stride = space.filters(number, nearest), space.skeleton.strides[number]
        blocks.append(replace(block, filters=width, stride=stride))
    member = space.skeleton.arch(blocks)
    return space.decode(space.encode(member))
