"""The factorized hierarchical search space: each block chooses its layer and repeats it.

Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile" (CVPR 2019, arXiv:1807.11626), section 4.1.
Departures (docs/explanation/departures.md): (1) the four ConvOps; (2) widths in multiples of 4; (3) the meaning of skip
`pool`; (4) impossible skips are not errors: `identity` without a possible residual is the same network as `none`;
(5) fields of a block that the paper does not have may be decisions too.
"""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, get_args

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.block import Block, BlockActivation, SqueezedWidth
from mnas.ops import KERNELS, OPS, Activation, Gate, Skip, op_names, op_text, parse_op
from mnas.require import require_choice, require_int, require_number
from mnas.space.skeleton import Skeleton, multiple_of_4
from mnas.space.space import Decision, Space


@dataclass(frozen=True, kw_only=True)
class BlockChoices:
    """Choices of one block; the defaults are the paper's 432 combinations.

    Raises ValueError, naming the field, if a list is empty, has duplicates, or a choice is out of range.
    """

    op: tuple[str, ...] = ("conv", "sepconv", "mbconv3", "mbconv6")
    """Ops with their expansion: `conv`, `sepconv`, `mbconv6`, `fused4`, `uib2.5`."""
    kernel: tuple[int, ...] = (3, 5)
    """Sides of the kernel. 0 needs a block whose ops are all `uib`, and 1 a block whose ops are all `conv`."""
    se_ratio: tuple[float, ...] = (0.0, 0.25)
    skip: tuple[Skip, ...] = ("pool", "identity", "none")
    filters: tuple[float, ...] = (0.75, 1.0, 1.25)
    """Multiples of the skeleton's filters, rounded to multiples of 4 (1.0 is the skeleton's own number)."""
    layers: tuple[int, ...] = (-1, 0, 1)
    """Differences from the skeleton's number of layers; at least one layer remains."""
    start_kernel: tuple[int, ...] = (0,)
    """Sides of the depthwise kernel before the expansion of a `uib`; 0 for none. Other ops have none."""
    activation: tuple[BlockActivation, ...] = ("network",)
    projection_activation: tuple[bool, ...] = (False,)
    """Whether an activation follows the projection; not of a `conv`, which has none."""
    se_width: tuple[SqueezedWidth, ...] = ("input",)
    se_activation: tuple[Activation, ...] = ("relu",)
    se_gate: tuple[Gate, ...] = ("sigmoid",)

    def __post_init__(self) -> None:
        for name, row in _ROWS.items():
            choices = getattr(self, name)
            if not isinstance(choices, list | tuple) or not choices:
                raise ValueError(f"{name} must be a list of at least one choice, but got {choices!r}")
            for choice in choices:
                row.check(choice)
            if name in ("se_ratio", "filters"):
                choices = map(float, choices)  # 0 and 0.0 are the same choice
            choices = tuple(choices)
            if len(set(choices)) != len(choices):
                raise ValueError(f"{name} must not repeat a choice, but got {', '.join(map(str, choices))}")
            object.__setattr__(self, name, choices)

    @property
    def size(self) -> int:
        """Number of combinations (the paper's S)."""
        return math.prod(len(choices) for choices in self.by_field.values())

    @functools.cached_property
    def by_field(self) -> dict[str, tuple[Any, ...]]:
        """Field -> its choices."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @functools.cached_property
    def decided(self) -> dict[str, tuple[Any, ...]]:
        """Field -> its choices, for each field that is a decision: the paper's six, and others with several choices."""
        return {name: c for name, c in self.by_field.items() if name not in LATER_CHOICES or len(c) > 1}


LATER_CHOICES: dict[str, Any] = {field.name: field.default for field in fields(BlockChoices)[6:]}
"""Fields that came after the paper's -> default, which the forms of a space leave out."""


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
        for block, choices in enumerate(self.block_choices):
            try:
                _check_kernels(choices)
                # each choice once is enough, as no other rule of Block combines two of them
                for name in _ROWS:
                    for choice in choices.by_field[name]:
                        self._block(block, self.skeleton.stem_filters, {name: choice})
            except ValueError as error:
                raise ValueError(f"block {block + 1}: {error}") from None

    @property
    def reference_skeleton(self) -> Skeleton:
        """Skeleton of the reference model: the members', as far as MobileNetV2 has such blocks.

        Blocks that are always a 1x1 convolution are left out, and the head precedes the pool.
        """
        skeleton = self.skeleton
        rows = list(zip(skeleton.filters, skeleton.layers, skeleton.strides, self.block_choices, strict=True))
        common = [row for row in rows if row[2] > 1 or row[3].kernel != (1,)] or rows
        filters, layers, strides, _ = zip(*common, strict=True)
        return replace(skeleton, filters=filters, layers=layers, strides=strides, head_pooled=False, head_norm=True)

    @property
    def blocks(self) -> int:
        """Number of blocks (the paper's B)."""
        return len(self.skeleton.filters)

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Decisions `block1.op`, `kernel`, `se_ratio`, `skip`, `filters`, `layers`, then `block2.op`, ...

        Other fields of a block follow its `layers` where they have more than one choice.
        """
        return tuple(
            Decision(f"block{number}.{name}", choices)
            for number, block in enumerate(self.block_choices, 1)
            for name, choices in block.decided.items()
        )

    @functools.cached_property
    def distinct(self) -> int:
        """Exact number of different networks.

        Only the width before a block determines whether its identity has an effect. So the count keeps, for every width
        that a block can end with, the number of ways to reach it.
        """
        ways = Counter({self.skeleton.stem_filters: 1})
        for block in range(self.blocks):
            free = math.prod(len(set(self._values(block, 0, names))) for names in _INDEPENDENT)
            next_ways: Counter[int] = Counter()
            for inputs, count in ways.items():
                for filters, _, _ in set(self._values(block, inputs, _SHAPE)):
                    next_ways[filters] += count * free
            ways = next_ways
        return ways.total()

    def decode(self, indices: Sequence[int]) -> Arch:
        self.check_indices(indices)
        chosen = iter(indices)
        blocks: list[Block] = []
        for block, choices in enumerate(self.block_choices):
            inputs = blocks[-1].filters if blocks else self.skeleton.stem_filters
            picked = {name: offered[next(chosen)] for name, offered in choices.decided.items()}
            blocks.append(self._block(block, inputs, picked))
        return self.skeleton.arch(blocks).canonical()

    def encode(self, arch: Architecture) -> tuple[int, ...]:
        if not isinstance(arch, Arch):
            raise ValueError(f"space {self.name} has networks of blocks, but got one of cells")
        arch = arch.canonical()
        self._check_frame(arch)
        indices: list[int] = []
        inputs = arch.stem_filters
        for number, (block, choices) in enumerate(zip(arch.blocks, self.block_choices, strict=True), 1):
            place = _Place(self, number - 1, inputs, {**vars(block), "op": (block.op, block.expansion)})
            for name, offers in choices.by_field.items():
                # compare the effect of each choice in this position with the block
                offered = [_ROWS[name].value(choice, place) for choice in offers]
                value = place.values[name]
                if value not in offered:
                    texts = [op_text(*v) if name == "op" else str(v) for v in (value, *offered)]
                    raise ValueError(
                        f"block {number} is not in space {self.name}: "
                        f"{name} must be one of {', '.join(texts[1:])}, but got {texts[0]}"
                    )
                if name in choices.decided:
                    indices.append(offered.index(value))
            inputs = block.filters
        return tuple(indices)

    def to_dict(self) -> dict[str, Any]:
        """Return the space in the form of a TOML file: `choices` of the first block, `block` for those that differ.

        Fields that came after the first files are left out where they have their defaults.
        """
        first, *others = (choices.by_field for choices in self.block_choices)
        blocks = {
            str(number): {name: list(choices) for name, choices in other.items() if choices != first[name]}
            for number, other in enumerate(others, 2)
            if other != first
        }
        common = {name: list(c) for name, c in first.items() if c != LATER_CHOICES.get(name)}
        return {"name": self.name, "skeleton": self.skeleton.to_dict(), "choices": common, "block": blocks}

    def _check_frame(self, arch: Arch) -> None:
        """Raise ValueError if `arch` differs from the skeleton in a field that the space fixes."""
        if len(arch.blocks) != self.blocks:
            raise ValueError(
                f"networks of space {self.name} have {self.blocks} blocks, but got one with {len(arch.blocks)}"
            )
        frame = self.skeleton.arch(arch.blocks).canonical()
        for field in fields(arch):
            expected, value = getattr(frame, field.name), getattr(arch, field.name)
            if value != expected:
                raise ValueError(f"{field.name} must be {expected} in space {self.name}, but got {value}")
        for number, (stride, block) in enumerate(zip(self.skeleton.strides, arch.blocks, strict=True), 1):
            for name, expected in (("stride", stride), ("mid_filters", 0)):
                if (value := getattr(block, name)) != expected:
                    raise ValueError(
                        f"block {number} is not in space {self.name}: {name} must be {expected}, but got {value}"
                    )

    def _block(self, block: int, inputs: int, picked: Mapping[str, Any]) -> Block:
        """Return a block with `inputs` input channels and the picked choices; other fields have their first choice."""
        place = _Place(self, block, inputs, {})
        for name, row in _ROWS.items():
            choice = picked.get(name, self.block_choices[block].by_field[name][0])
            place.values[name] = row.value(choice, place)
        op, expansion = place.values["op"]
        values = {**place.values, "op": op, "expansion": expansion}
        return Block(stride=self.skeleton.strides[block], **values)

    def _values(self, block: int, inputs: int, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield what each combination of choices of the fields `names` gives in a block with `inputs` channels."""
        choices = self.block_choices[block].by_field
        for combination in itertools.product(*(choices[name] for name in names)):
            place = _Place(self, block, inputs, {})
            for name, choice in zip(names, combination, strict=True):
                place.values[name] = _ROWS[name].value(choice, place)
            yield tuple(place.values.values())

    def filters(self, block: int, multiplier: float) -> int:
        base = self.skeleton.filters[block]
        return base if multiplier == 1 else multiple_of_4(base * multiplier)

    def layers(self, block: int, added: int) -> int:
        return max(1, self.skeleton.layers[block] + added)


class _Place(NamedTuple):
    """Where a choice is made."""

    space: FactorizedSpace
    block: int
    """Number of the block, from 0."""
    inputs: int
    """Input channels of the block."""
    values: dict[str, Any]
    """Values of the block's fields in the canonical network; `op` is op and expansion."""

    def has_residual(self) -> bool:
        """Return whether some layer of the block can add its input."""
        same_shape = self.space.skeleton.strides[self.block] == 1 and self.inputs == self.values["filters"]
        return same_shape or bool(self.values["layers"] > 1)


class _Row(NamedTuple):
    """The rules for the choices of one field."""

    check: Callable[[Any], object]
    """Raises ValueError unless its argument is a choice of the field."""
    value: Callable[[Any, _Place], Any]
    """Returns the value of the field in the canonical network. It may depend on fields earlier in the table."""


def _one_of(name: str, offered: Sequence[object]) -> Callable[[Any], object]:
    return lambda choice: require_choice(name, choice, offered)


def _check_op(choice: Any) -> None:
    if not isinstance(choice, str):
        raise ValueError(f"op must be {op_names()}, but got {choice!r}")
    parse_op(choice)


def _itself(choice: Any, place: _Place) -> Any:
    return choice


def _squeeze_rule(name: str) -> Callable[[Any, _Place], Any]:
    """Return the value of a field that has an effect only with squeeze-and-excitation."""
    return lambda choice, place: choice if place.values["se_ratio"] else LATER_CHOICES[name][0]


_ROWS: dict[str, _Row] = {
    "op": _Row(_check_op, lambda choice, place: parse_op(choice)),
    "kernel": _Row(_one_of("kernel", sorted({kernel for row in OPS.values() for kernel in row.kernels})), _itself),
    "se_ratio": _Row(lambda choice: require_number("se_ratio", choice, 0, 1), _itself),
    "filters": _Row(
        lambda choice: require_number("a choice of filters", choice, 0.01, 100),
        lambda choice, place: place.space.filters(place.block, choice),
    ),
    "layers": _Row(
        lambda choice: require_int("a choice of layers", choice, -100, 100),
        lambda choice, place: place.space.layers(place.block, choice),
    ),
    "skip": _Row(
        _one_of("skip", get_args(Skip)),
        lambda choice, place: "none" if choice == "identity" and not place.has_residual() else choice,
    ),
    "start_kernel": _Row(
        _one_of("start_kernel", (0, *KERNELS)),
        lambda choice, place: choice if choice in OPS[place.values["op"][0]].start_kernels else 0,
    ),
    "activation": _Row(
        _one_of("activation", get_args(BlockActivation)),
        lambda choice, place: "network" if choice == place.space.skeleton.activation else choice,
    ),
    "projection_activation": _Row(
        _one_of("projection_activation", (False, True)),
        lambda choice, place: choice and OPS[place.values["op"][0]].projects,
    ),
    "se_width": _Row(_one_of("se_width", get_args(SqueezedWidth)), _squeeze_rule("se_width")),
    "se_activation": _Row(_one_of("se_activation", get_args(Activation)), _squeeze_rule("se_activation")),
    "se_gate": _Row(_one_of("se_gate", get_args(Gate)), _squeeze_rule("se_gate")),
}
"""Field of `BlockChoices` -> its row; a field follows those that its value depends on."""
_SHAPE = ("filters", "layers", "skip")
_INDEPENDENT = (
    ("op", "start_kernel", "projection_activation"),
    ("kernel",),
    ("se_ratio", "se_width", "se_activation", "se_gate"),
    ("activation",),
)
"""Fields whose values depend on each other, and on neither the block's shape nor other such groups."""


def _check_kernels(choices: BlockChoices) -> None:
    """Raise ValueError unless each op can have each kernel."""
    for op in choices.op:
        allowed = OPS[parse_op(op)[0]].kernels
        for kernel in choices.kernel:
            if kernel not in allowed:
                raise ValueError(
                    f"kernel must be one of {', '.join(map(str, allowed))} where op offers {op}, but got {kernel}"
                )
