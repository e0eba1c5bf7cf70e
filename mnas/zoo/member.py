"""A published network as a space has it."""

import math
from dataclasses import replace

from mnas.arch import Arch
from mnas.space.factorized import FactorizedSpace
from mnas.space.skeleton import MOBILENETV2

NEAR = 1.1
"""A width may be off by this factor: MnasNet-A1's 112 filters are 120 in the paper's own space, which has no 112."""


def nearest_member(space: FactorizedSpace, published: Arch) -> Arch:
    """The member of `space` that is `published` on the space's skeleton, in its canonical form.

    Operations, kernels, squeeze-and-excitation, skips and numbers of layers are its own. Widths are as many times the
    skeleton's as the published ones are MobileNetV2's, as near as the space offers. Stem, head, strides and activation
    are the skeleton's. MobileNetV2 is so, but for its activation, the reference model on that skeleton.

    Raises:
        ValueError: there is none; one line with the block and what of it the space does not have.
    """
    if not len(published.blocks) == len(MOBILENETV2.filters) == space.blocks:
        raise ValueError(f"space {space.name} has {space.blocks} blocks, but it has {len(published.blocks)}")
    blocks = []
    for number, block in enumerate(published.blocks):
        share = block.filters / MOBILENETV2.filters[number]
        offered = space.block_choices[number].filters
        nearest = min(offered, key=lambda width: abs(math.log(width / share)))
        if not 1 / NEAR <= nearest / share <= NEAR:
            raise ValueError(
                f"block {number + 1} is {share:.2f} times as wide as MobileNetV2's, and space {space.name} offers "
                f"{', '.join(f'{width:g}' for width in offered)} times the skeleton's"
            )
        width, stride = space.filters(number, nearest), space.skeleton.strides[number]
        blocks.append(replace(block, filters=width, stride=stride))
    member = space.skeleton.arch(blocks)
    return space.decode(space.encode(member))
