"""The flat search space: every layer makes its own choices, where the factorized one makes them once a block.

Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile" (CVPR 2019, arXiv:1807.11626), section 4.1,
compares its space with this one. Departure (docs/departures.md): the number of layers is the skeleton's, so a layer has
144 combinations of choices; the paper's count raises all 432 of a block, depths among them, to the number of layers.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.space.factorized import BlockChoices, FactorizedSpace
from mnas.space.skeleton import Skeleton
from mnas.space.space import Decision, Space


@dataclass(frozen=True, kw_only=True)
class PerLayerSpace(Space):
    """Layers on a skeleton, each with its own choices; a member has one block of one layer for each of them.

    The skeleton is written with its blocks, as in the factorized space, so the two have one reference model.
    Raises ValueError where some member could not be built.
    """

    skeleton: Skeleton
    block_choices: tuple[BlockChoices, ...]
    """One for each block of the skeleton, offered to each of its layers; their `layers` are (0,)."""

    def __post_init__(self) -> None:
        for number, choices in enumerate(self.block_choices, 1):
            if choices.layers != (0,):
                raise ValueError(
                    f"block {number}: layers must be [0] in a per-layer space, whose number of layers is fixed, "
                    f"but got {list(choices.layers)}"
                )
        _ = self.blocks, self.flat  # what cannot be is refused when they are made

    @property
    def reference_skeleton(self) -> Skeleton:
        return self.skeleton

    @functools.cached_property
    def blocks(self) -> FactorizedSpace:
        """The choices by blocks of the skeleton."""
        return FactorizedSpace(name=self.name, skeleton=self.skeleton, block_choices=self.block_choices)

    @functools.cached_property
    def flat(self) -> FactorizedSpace:
        """The same networks as a factorized space: on a skeleton that has a block of one layer for each layer."""
        layers = zip(self.block_choices, self.skeleton.layers, strict=True)
        choices = tuple(choices for choices, count in layers for _ in range(count))
        return FactorizedSpace(name=self.name, skeleton=self.skeleton.unrolled(), block_choices=choices)

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Five for each layer, counted as blocks: `block1.op`, `kernel`, `se_ratio`, `skip`, `filters`; `block2.op`."""
        return tuple(decision for decision in self.flat.decisions if not decision.name.endswith(".layers"))

    @property
    def distinct(self) -> int:
        return self.flat.distinct

    def decode(self, indices: Sequence[int]) -> Arch:
        self.check_indices(indices)
        chosen = iter(indices)
        return self.flat.decode([0 if d.name.endswith(".layers") else next(chosen) for d in self.flat.decisions])

    def encode(self, arch: Architecture) -> tuple[int, ...]:
        """As `Space.encode`, for `unrolled(arch)`: blocks of several layers are taken layer by layer."""
        indices = self.flat.encode(unrolled(arch) if isinstance(arch, Arch) else arch)
        return tuple(i for i, d in zip(indices, self.flat.decisions, strict=True) if not d.name.endswith(".layers"))

    def to_dict(self) -> dict[str, Any]:
        """As the factorized space's, with `kind`."""
        return {"kind": "per-layer", **self.blocks.to_dict()}


def unrolled(arch: Arch) -> Arch:
    """The same network with one block for each layer, in its canonical form.

    Raises ValueError where it has more layers than an architecture may have blocks.
    """
    blocks = (
        replace(block, layers=1, stride=block.stride if index == 0 else 1)
        for block in arch.blocks
        for index in range(block.layers)
    )
    return replace(arch, blocks=tuple(blocks)).canonical()
