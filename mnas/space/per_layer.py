"""The flat search space: every layer has its own choices, where the factorized space has one set per block.

Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile" (CVPR 2019, arXiv:1807.11626), section 4.1,
compares its space with this one. Departure (docs/explanation/departures.md): the number of layers is the skeleton's, so
a layer has 144 combinations of choices. The paper raises all 432 of a block, which include depths, to the number of
layers.
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
    """Layers on a skeleton, each with its own choices; a member has a block of one layer for each of them.

    The skeleton has blocks, as in the factorized space, so that both spaces share a reference model.
    Raises ValueError if some member could not be built.
    """

    skeleton: Skeleton
    block_choices: tuple[BlockChoices, ...]
    """Choices of each block of the skeleton, which apply to each of its layers; their `layers` are (0,)."""

    def __post_init__(self) -> None:
        for number, choices in enumerate(self.block_choices, 1):
            if choices.layers != (0,):
                raise ValueError(
                    f"block {number}: layers must be [0], because a per-layer space has a fixed number of layers, "
                    f"but got {list(choices.layers)}"
                )
        _ = self.blocks, self.flat  # building them checks the choices

    @property
    def reference_skeleton(self) -> Skeleton:
        return self.blocks.reference_skeleton

    @functools.cached_property
    def blocks(self) -> FactorizedSpace:
        """The choices as a factorized space on the skeleton's blocks."""
        return FactorizedSpace(name=self.name, skeleton=self.skeleton, block_choices=self.block_choices)

    @functools.cached_property
    def flat(self) -> FactorizedSpace:
        """A factorized space of the same networks, on a skeleton with a block for each layer."""
        layers = zip(self.block_choices, self.skeleton.layers, strict=True)
        choices = tuple(choices for choices, count in layers for _ in range(count))
        return FactorizedSpace(name=self.name, skeleton=self.skeleton.unrolled(), block_choices=choices)

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Those of `FactorizedSpace` for each layer, without `layers`: `block1.op`, ..., `block2.op`, ..."""
        return tuple(decision for decision in self.flat.decisions if not decision.name.endswith(".layers"))

    @property
    def distinct(self) -> int:
        return self.flat.distinct

    def decode(self, indices: Sequence[int]) -> Arch:
        self.check_indices(indices)
        chosen = iter(indices)
        return self.flat.decode([0 if d.name.endswith(".layers") else next(chosen) for d in self.flat.decisions])

    def encode(self, arch: Architecture) -> tuple[int, ...]:
        """Return the index vector of `unrolled(arch)`, as in `Space.encode`."""
        indices = self.flat.encode(unrolled(arch) if isinstance(arch, Arch) else arch)
        return tuple(i for i, d in zip(indices, self.flat.decisions, strict=True) if not d.name.endswith(".layers"))

    def to_dict(self) -> dict[str, Any]:
        """Return the factorized space's form, with `kind`."""
        return {"kind": "per-layer", **self.blocks.to_dict()}


def unrolled(arch: Arch) -> Arch:
    """Return the same network with one block for each layer, in canonical form.

    Raises ValueError if it has more layers than an architecture may have blocks.
    """
    blocks = (
        replace(block, layers=1, stride=block.stride if index == 0 else 1)
        for block in arch.blocks
        for index in range(block.layers)
    )
    return replace(arch, blocks=tuple(blocks)).canonical()
