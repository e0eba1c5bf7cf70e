"""Map a published network to the nearest member of a space, within a tolerance or at any distance."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mnas.arch import Arch
from mnas.block import Block
from mnas.ops import Op, parse_op
from mnas.space.factorized import LATER_CHOICES, FactorizedSpace
from mnas.space.per_layer import PerLayerSpace
from mnas.space.skeleton import MOBILENETV2, MOBILENETV4

NEAR = 1.1
"""Largest factor between a published width and the nearest one in a space.

In the paper's space, the 112 filters of MnasNet-A1 become 120."""

SIMILAR_OPS: Mapping[Op, tuple[Op, ...]] = {
    "mbconv": ("mbconv", "uib", "fused", "sepconv", "conv"),
    "sepconv": ("sepconv", "mbconv", "uib", "fused", "conv"),
}
"""Op of MobileNetV2 or MnasNet-A1 -> ops by similarity; a `uib` without a start kernel computes what `mbconv` does."""
SIMILAR_SKIPS = ("identity", "none", "pool")
"""Skips in the order in which one replaces a skip that a space does not offer."""


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


def member_like(space: FactorizedSpace | PerLayerSpace, published: Arch) -> Arch:
    """Return the member of `space` whose choices are nearest to `published`, in canonical form, at any distance.

    Each field of a block takes the nearest choice on its own: widths as multiples of MobileNetV2's, and numbers of
    layers as differences from MobileNetV2's. In a space with another number of blocks, a block is compared with the
    published block at the same relative depth, counted in layers.

    Args:
        published: MobileNetV2 or MnasNet-A1, or another network with seven blocks of their ops.
    """
    blocks = space.blocks if isinstance(space, PerLayerSpace) else space
    indices = []
    for number, choices in enumerate(blocks.block_choices):
        place = _corresponding(blocks, number)
        for name, offered in choices.decided.items():
            distances = [_distance(name, choice, published.blocks[place], place) for choice in offered]
            indices.append(distances.index(min(distances)))
    return space.decode(space.encode(blocks.decode(indices)))


def _corresponding(space: FactorizedSpace, number: int) -> int:
    """Return the block of MobileNetV2 at the relative depth of the middle of block `number` of the space's skeleton."""
    if space.blocks == len(MOBILENETV2.layers):
        return number
    layers = space.skeleton.layers
    middle = (sum(layers[:number]) + layers[number] / 2) / sum(layers) * sum(MOBILENETV2.layers)
    return next(place for place in range(len(MOBILENETV2.layers)) if sum(MOBILENETV2.layers[: place + 1]) > middle)


def _distance(name: str, choice: Any, block: Block, place: int) -> tuple[float, ...]:
    """Return how far a choice of the field `name` is from `block`, which is at `place` in the published network."""
    match name:
        case "op":
            op, expansion = parse_op(choice)
            return SIMILAR_OPS[block.op].index(op), abs(math.log(expansion / block.expansion))
        case "kernel" | "se_ratio":
            return abs(choice - getattr(block, name)), choice  # of two at the same distance, the smaller
        case "skip":
            return choice != block.skip, SIMILAR_SKIPS.index(choice)
        case "filters":
            return (abs(math.log(choice * MOBILENETV2.filters[place] / block.filters)),)
        case "layers":
            return (abs(choice - (block.layers - MOBILENETV2.layers[place])),)
    return (choice != LATER_CHOICES[name][0],)
