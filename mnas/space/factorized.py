"""The factorized hierarchical search space: each block chooses its layer and repeats it.

Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile" (CVPR 2019, arXiv:1807.11626), section 4.1.
Departures (docs/explanation/departures.md): (1) the four ConvOps; (2) widths in multiples of 4; (3) the meaning of skip
`pool`; (4) impossible skips are not errors: `identity` without a possible residual is the same network as `none`.
"""

import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from mnas.arch import Arch, Block, require_choice, require_int, require_number
from mnas.architecture import Architecture
from mnas.ops import KERNELS, Skip, op_names, op_text, parse_op
from mnas.space.skeleton import Skeleton, multiple_of_4
from mnas.space.space import Choice, Decision, Space


@dataclass(frozen=True, kw_only=True)
class BlockChoices:
    """Choices of one block; the defaults are the paper's 432 combinations.

    Raises ValueError, naming the field, if a list is empty, has duplicates, or a choice is out of range.
    """

    op: tuple[str, ...] = ("conv", "sepconv", "mbconv3", "mbconv6")
    """Ops: `conv`, `sepconv`, `mbconvN` or `fusedN` with an expansion N of 2 to 32."""
    kernel: tuple[int, ...] = (3, 5)
    se_ratio: tuple[float, ...] = (0.0, 0.25)
    skip: tuple[Skip, ...] = ("pool", "identity", "none")
    filters: tuple[float, ...] = (0.75, 1.0, 1.25)
    """Multiples of the skeleton's filters, rounded to multiples of 4 (1.0 is the skeleton's own number)."""
    layers: tuple[int, ...] = (-1, 0, 1)
    """Differences from the skeleton's number of layers; at least one layer remains."""

    def __post_init__(self) -> None:
        for field in fields(self):
            choices = getattr(self, field.name)
            if not isinstance(choices, list | tuple) or not choices:
                raise ValueError(f"{field.name} must be a list of at least one choice, but got {choices!r}")
            for choice in choices:
                _check_choice(field.name, choice)
            if field.name in ("se_ratio", "filters"):
                choices = map(float, choices)  # 0 and 0.0 are the same choice
            choices = tuple(choices)
            if len(set(choices)) != len(choices):
                raise ValueError(f"{field.name} must not repeat a choice, but got {', '.join(map(str, choices))}")
            object.__setattr__(self, field.name, choices)

    @property
    def size(self) -> int:
        """Number of combinations (the paper's S)."""
        return math.prod(len(choices) for choices in asdict(self).values())


@dataclass(frozen=True, kw_only=True)
class FactorizedSpace(Space):
    """Blocks on a skeleton, each with its own choices. Raises ValueError if some member could not be built."""

    skeleton: Skeleton
    block_choices: tuple[BlockChoices, ...]
    """Choices of each block of the skeleton."""

    def __post_init__(self) -> None:
        if type(self.name) is not str or not self.name.isprintable() or not 1 <= len(self.name) <= 100:
            raise ValueError(f"name must be 1 to 100 characters on one line, but got {self.name!r}")
        if len(self.block_choices) != self.blocks:
            raise ValueError(
                f"there must be choices for each of {self.blocks} blocks, but got {len(self.block_choices)}"
            )
        names = [field.name for field in fields(BlockChoices)]
        for block, choices in enumerate(self.block_choices):
            for name in names:  # each choice once is enough, as no rule of Block combines two of them
                for index in range(len(getattr(choices, name))):
                    try:
                        self._block(block, [index if other == name else 0 for other in names])
                    except ValueError as error:
                        raise ValueError(f"block {block + 1}: {error}") from None

    @property
    def reference_skeleton(self) -> Skeleton:
        return self.skeleton

    @property
    def blocks(self) -> int:
        """Number of blocks (the paper's B)."""
        return len(self.skeleton.filters)

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Six for each block: `block1.op`, `kernel`, `se_ratio`, `skip`, `filters`, `layers`, then `block2.op`, ..."""
        return tuple(
            Decision(f"block{number}.{name}", choices)
            for number, block in enumerate(self.block_choices, 1)
            for name, choices in asdict(block).items()
        )

    @functools.cached_property
    def distinct(self) -> int:
        """Exact number of different networks.

        Only the width before a block determines whether its identity has an effect. So the count keeps, for every width
        that a block can end with, the number of ways to reach it.
        """
        ways = Counter({self.skeleton.stem_filters: 1})
        for block, choices in enumerate(self.block_choices):
            free = math.prod(len(c) for name, c in asdict(choices).items() if name not in ("skip", "filters", "layers"))
            widths = {self.filters(block, c) for c in choices.filters}
            depths = {self.layers(block, c) for c in choices.layers}
            next_ways: Counter[int] = Counter()
            for inputs, count in ways.items():
                for width in widths:
                    skips = sum(len(set(self._skips(block, inputs, width, depth))) for depth in depths)
                    next_ways[width] += count * free * skips
            ways = next_ways
        return ways.total()

    def decode(self, indices: Sequence[int]) -> Arch:
        self.check_indices(indices)
        step = len(fields(BlockChoices))
        blocks = [self._block(block, indices[step * block : step * (block + 1)]) for block in range(self.blocks)]
        return self.skeleton.arch(blocks).canonical()

    def encode(self, arch: Architecture) -> tuple[int, ...]:
        if not isinstance(arch, Arch):
            raise ValueError(f"space {self.name} has networks of blocks, but got one of cells")
        arch = arch.canonical()
        self._check_frame(arch)
        indices: list[int] = []
        inputs = arch.stem_filters
        for number, (block, choices) in enumerate(zip(arch.blocks, self.block_choices, strict=True), 1):
            # Compare the effect of each choice in this position with the block.
            meanings: dict[str, tuple[Sequence[object], object]] = {
                "op": ([parse_op(c) for c in choices.op], (block.op, block.expansion)),
                "kernel": (choices.kernel, block.kernel),
                "se_ratio": (choices.se_ratio, block.se_ratio),
                "skip": (self._skips(number - 1, inputs, block.filters, block.layers), block.skip),
                "filters": ([self.filters(number - 1, c) for c in choices.filters], block.filters),
                "layers": ([self.layers(number - 1, c) for c in choices.layers], block.layers),
            }
            for name, (offered, value) in meanings.items():
                if value not in offered:
                    texts = [op_text(*v) if isinstance(v, tuple) else str(v) for v in (value, *offered)]
                    raise ValueError(
                        f"block {number} is not in space {self.name}: "
                        f"{name} must be one of {', '.join(texts[1:])}, but got {texts[0]}"
                    )
                indices.append(offered.index(value))
            inputs = block.filters
        return tuple(indices)

    def to_dict(self) -> dict[str, Any]:
        """Return the space in the form of a TOML file: `choices` of the first block, `block` for those that differ."""
        first, *others = ({k: list(v) for k, v in asdict(c).items()} for c in self.block_choices)
        blocks = {
            str(number): changed
            for number, other in enumerate(others, 2)
            if (changed := {name: choices for name, choices in other.items() if choices != first[name]})
        }
        return {"name": self.name, "skeleton": self.skeleton.to_dict(), "choices": first, "block": blocks}

    def _check_frame(self, arch: Arch) -> None:
        """Raise ValueError if `arch` differs from the skeleton in a field that the space fixes."""
        if len(arch.blocks) != self.blocks:
            raise ValueError(
                f"networks of space {self.name} have {self.blocks} blocks, but got one with {len(arch.blocks)}"
            )
        frame = self.skeleton.arch(arch.blocks)
        for field in fields(arch):
            expected, value = getattr(frame, field.name), getattr(arch, field.name)
            if value != expected:
                raise ValueError(f"{field.name} must be {expected} in space {self.name}, but got {value}")
        for number, (stride, block) in enumerate(zip(self.skeleton.strides, arch.blocks, strict=True), 1):
            if block.stride != stride:
                raise ValueError(
                    f"block {number} is not in space {self.name}: stride must be {stride}, but got {block.stride}"
                )

    def _block(self, block: int, indices: Sequence[int]) -> Block:
        choices = self.block_choices[block]
        op, kernel, se_ratio, skip, filters, layers = indices
        kind, expansion = parse_op(choices.op[op])
        return Block(
            op=kind,
            kernel=choices.kernel[kernel],
            stride=self.skeleton.strides[block],
            filters=self.filters(block, choices.filters[filters]),
            layers=self.layers(block, choices.layers[layers]),
            expansion=expansion,
            se_ratio=choices.se_ratio[se_ratio],
            skip=choices.skip[skip],
        )

    def filters(self, block: int, multiplier: float) -> int:
        base = self.skeleton.filters[block]
        return base if multiplier == 1 else multiple_of_4(base * multiplier)

    def layers(self, block: int, added: int) -> int:
        return max(1, self.skeleton.layers[block] + added)

    def _skips(self, block: int, inputs: int, filters: int, layers: int) -> list[Skip]:
        """Return the skip of each choice in the canonical architecture."""
        no_residual = layers == 1 and (self.skeleton.strides[block] != 1 or inputs != filters)
        return ["none" if s == "identity" and no_residual else s for s in self.block_choices[block].skip]


def _check_choice(name: str, choice: Choice) -> None:
    """Raise ValueError unless `choice` is valid in the list `name`."""
    if name == "op":
        if not isinstance(choice, str):
            raise ValueError(f"op must be {op_names()}, but got {choice!r}")
        parse_op(choice)
    elif name == "kernel":
        require_choice(name, choice, KERNELS)
    elif name == "se_ratio":
        require_number(name, choice, 0, 1)
    elif name == "skip":
        require_choice(name, choice, get_args(Skip))
    elif name == "filters":
        require_number("a choice of filters", choice, 0.01, 100)
    else:
        require_int("a choice of layers", choice, -100, 100)
