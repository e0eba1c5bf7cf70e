"""Cell architectures as plain values: stacks of a normal and a reduction cell, as in NASNet and its successors.

Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition" (CVPR 2018, arXiv:1707.07012), and
its published code (tensorflow/models, research/slim/nets/nasnet). A cell has two inputs, the outputs of the two cells
before it. Each further state is the sum of two operations on earlier states. States are numbered as published: 0 is the
output of the previous cell, 1 that of the cell before it, 2 the first sum, and so on. Departures
(docs/explanation/departures.md): no auxiliary head and no drop path, which exist in training only; (1) SAME padding
everywhere; (2) state 1 is always projected to the cell's width; (3) ReLU before the final pooling in all networks.
"""

import functools
import hashlib
import json
import math
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from mnas.arch import Padding, with_product
from mnas.block import MAX_FILTERS
from mnas.ops import Activation
from mnas.require import checked_fields, require_choice, require_input_size, require_int, require_number

OPS = (
    *("identity", "conv1x3", "conv1x7", "dil3", "avg3", "max3", "max5", "max7", "conv1", "conv3"),
    *("sep3", "sep5", "sep7", "dilsep3", "dilsep5"),
)
"""Operations of a branch; the first 13 are NASNet's list, dilsep3 and dilsep5 are DARTS's.

`sepK`: depthwise-separable convolution, applied twice; `dilsepK`: once, with dilation 2; `avgK`, `maxK`: pools;
`conv1x3`: 1x3, then 3x1; `dil3`: convolution with dilation 2. Convolutions wider than 1x1 work on a quarter of the
channels (conv1x3: three eighths), between 1x1 convolutions, as in AmoebaNet's published code.
"""
MAX_PAIRS = 6
MAX_CELLS = 100


class Pair(NamedTuple):
    """A state of a cell: op1 applied to state input1, plus op2 applied to state input2."""

    input1: int
    op1: str
    input2: int
    op2: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The computation of a cell. Raises ValueError if a field is out of range, or a state is unused."""

    pairs: tuple[Pair, ...]
    """States 2, 3, ..., each computed from earlier states."""
    concat: tuple[int, ...]
    """States that are concatenated to the output, in ascending order."""

    def __post_init__(self) -> None:
        for name in ("pairs", "concat"):
            if not isinstance(getattr(self, name), list | tuple):
                raise ValueError(f"{name} of a cell must be a list, but got {reprlib.repr(getattr(self, name))}")
        if not 1 <= len(self.pairs) <= MAX_PAIRS:
            raise ValueError(f"a cell must have 1 to {MAX_PAIRS} pairs, but got {len(self.pairs)}")
        object.__setattr__(self, "pairs", tuple(_pair(number, pair) for number, pair in enumerate(self.pairs, 1)))
        object.__setattr__(self, "concat", tuple(self.concat))
        states = len(self.pairs) + 2
        for state in self.concat:
            require_int("a state in concat", state, 0, states - 1)
        if not self.concat or list(self.concat) != sorted(set(self.concat)):
            raise ValueError(f"concat must name at least one state, in ascending order, but got {list(self.concat)}")
        if unused := [state for state in unused_states(self.pairs) if state not in self.concat]:
            raise ValueError(f"every state must be used by a later pair or by concat, but {unused} are unused")

    def canonical(self) -> "Cell":
        """Return the same cell in the lexicographically first order of its pairs and of their branches.

        Branches are compared by input, then by the op's index in `OPS`.
        """
        states = range(len(self.pairs) + 2)
        return min(_reorderings(self), key=lambda cell: (cell.indices, [state in cell.concat for state in states]))

    @property
    def indices(self) -> tuple[tuple[int, int, int, int], ...]:
        """Pairs with each op as its index in `OPS`."""
        return tuple((p.input1, OPS.index(p.op1), p.input2, OPS.index(p.op2)) for p in self.pairs)

    @property
    def text(self) -> str:
        """Return `sep5(0)+sep3(1) ... -> 1 2 3`: the pairs from state 2 on, then the concatenated states."""
        pairs = " ".join(f"{p.op1}({p.input1})+{p.op2}({p.input2})" for p in self.pairs)
        return f"{pairs} -> {' '.join(map(str, self.concat))}"


def unused_states(pairs: Sequence[Pair]) -> tuple[int, ...]:
    """Return the states from 2 on that no later pair uses."""
    used = {state for pair in pairs for state in (pair.input1, pair.input2)}
    return tuple(state for state in range(2, len(pairs) + 2) if state not in used)


@dataclass(frozen=True, kw_only=True)
class CellSkeleton:
    """The stack of cells, and all fields outside the cells; the defaults are NASNet-A mobile's.

    Raises ValueError if a field is out of range.
    """

    cells: tuple[int, ...] = (4, 4, 4)
    """Normal cells of each stage (NASNet's N, three times); a reduction cell comes between two stages."""
    filters: int = 44
    """Channels of every state of the first stage (NASNet's F); each reduction cell doubles them."""
    stem_filters: tuple[int, ...] = (32,)
    """Filters of the stem's successive 3x3 convolutions."""
    stem_strides: tuple[int, ...] = (2,)
    """Stride of each of these convolutions: 1 or 2."""
    stem_cells: int = 2
    """Reduction cells between the stem's convolutions and the first stage, with half of its filters, a quarter, ..."""
    dropout: float = 0.5
    bn_epsilon: float = 1e-3
    bn_momentum: float = 3e-4
    """Momentum of batch norm as torch defines it: one minus the published decay of 0.9997."""

    def __post_init__(self) -> None:
        for name, low, high in (("cells", 0, MAX_CELLS), ("stem_filters", 1, MAX_FILTERS), ("stem_strides", 1, 2)):
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or not 1 <= len(values) <= 6:
                raise ValueError(f"{name} must be a list of 1 to 6 numbers, but got {reprlib.repr(values)}")
            for value in values:
                require_int(f"each of {name}", value, low, high)
            object.__setattr__(self, name, tuple(values))
        if len(self.stem_filters) != len(self.stem_strides):
            raise ValueError(
                "stem_filters and stem_strides must have one number for each convolution, "
                f"but got {len(self.stem_filters)} and {len(self.stem_strides)}"
            )
        require_int("filters", self.filters, 4, MAX_FILTERS >> len(self.cells))
        require_int("stem_cells", self.stem_cells, 0, 2)
        require_number("dropout", self.dropout, 0, 0.99)
        require_number("bn_epsilon", self.bn_epsilon, 1e-9, 1)
        require_number("bn_momentum", self.bn_momentum, 1e-9, 1)
        for name in ("dropout", "bn_epsilon", "bn_momentum"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not 1 <= len(self.plan) <= MAX_CELLS:
            raise ValueError(f"a network must have 1 to {MAX_CELLS} cells, but got {len(self.plan)}")

    @functools.cached_property
    def plan(self) -> tuple[tuple[str, int], ...]:
        """Cells in order, each as (`normal` or `reduction`, filters)."""
        plan = [("reduction", self.filters >> k) for k in range(self.stem_cells, 0, -1)]
        for stage, count in enumerate(self.cells):
            plan += [("reduction", self.filters << stage)] if stage else []
            plan += [("normal", self.filters << stage)] * count
        return tuple(plan)

    @property
    def output_stride(self) -> int:
        """Input pixels per pixel of the last feature map, along one side."""
        return math.prod(self.stem_strides) << (self.stem_cells + len(self.cells) - 1)

    def with_output_stride(self, output_stride: int) -> "CellSkeleton":
        """Return the skeleton without its earliest strides: stem convolutions get stride 1, stem cells are removed.

        Raises ValueError if the stride is not a power of 2, is too large, or would require removing a stage.
        """
        between = len(self.cells) - 1
        own = (*self.stem_strides, *(2,) * self.stem_cells)
        if type(output_stride) is int and output_stride < 1 << between:
            raise ValueError(
                f"output stride must be at least {1 << between} with {between} reduction cells between the stages, "
                f"but got {output_stride}"
            )
        strides = with_product((*own, *(2,) * between), output_stride)
        count = len(self.stem_strides)
        return replace(self, stem_strides=strides[:count], stem_cells=strides[count : len(own)].count(2))

    def scaled(self, width_multiplier: float) -> "CellSkeleton":
        """Return the skeleton with cells and stem scaled in width, to even numbers of at least 4.

        Raises ValueError unless the multiplier is a number from 0.01 to 100.
        """
        require_number("width multiplier", width_multiplier, 0.01, 100)

        def even(filters: int) -> int:
            return filters if width_multiplier == 1 else max(4, 2 * int(filters * width_multiplier / 2 + 0.5))

        return replace(self, filters=even(self.filters), stem_filters=tuple(map(even, self.stem_filters)))

    @property
    def text(self) -> str:
        """Return a line such as `stem convolutions 32/2, stem cells 2, cells 4+4+4 from 44 filters on`.

        32/2 means 32 filters at stride 2.
        """
        convolutions = " ".join(f"{f}/{s}" for f, s in zip(self.stem_filters, self.stem_strides, strict=True))
        cells = "+".join(map(str, self.cells))
        stem = f"stem convolutions {convolutions}, stem cells {self.stem_cells}"
        return f"{stem}, cells {cells} from {self.filters} filters on"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values, from which `CellSkeleton(**values)` restores an equal object."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class CellArch:
    """A network without its number of classes: stem, cells, average pool, classifier, with ReLU and batch norm.

    Raises ValueError if a field is out of range.
    """

    normal: Cell
    """Cell that keeps the size of the feature map."""
    reduction: Cell
    """Cell that halves the feature map: its operations on states 0 and 1 have stride 2."""
    skeleton: CellSkeleton = CellSkeleton()

    def __post_init__(self) -> None:
        for name, kind in (("normal", Cell), ("reduction", Cell), ("skeleton", CellSkeleton)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} must be a {kind.__name__}, but got {reprlib.repr(getattr(self, name))}")

    # The interface of `mnas.arch.Arch`

    @property
    def padding(self) -> Padding:
        """Padding rule: always that of TensorFlow and LiteRT."""
        return "same"

    @property
    def activation(self) -> Activation:
        return "relu"

    @property
    def dropout(self) -> float:
        """Dropout probability before the classifier."""
        return self.skeleton.dropout

    @property
    def bn_epsilon(self) -> float:
        return self.skeleton.bn_epsilon

    @property
    def bn_momentum(self) -> float:
        return self.skeleton.bn_momentum

    @property
    def output_stride(self) -> int:
        """Input pixels per pixel of the last feature map, along one side."""
        return self.skeleton.output_stride

    def check_input_size(self, input_size: int, name: str = "--input-size") -> None:
        """Raise ValueError, naming `name`, if an image of `input_size` x `input_size` is too small for the strides."""
        require_input_size(name, input_size, self.output_stride)

    def canonical(self) -> "CellArch":
        """Return the same network with both cells in canonical form (see `Cell.canonical`)."""
        return replace(self, normal=self.normal.canonical(), reduction=self.reduction.canonical())

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of `canonical()`: 16 hexadecimal digits, the same on every machine and Python version."""
        text = json.dumps(self.canonical().to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def scale_width(self, width_multiplier: float, *, scale_head: bool = False) -> "CellArch":
        """Return the network on `skeleton.scaled(width_multiplier)`; `scale_head` has no effect."""
        return replace(self, skeleton=self.skeleton.scaled(width_multiplier))

    def with_output_stride(self, output_stride: int) -> "CellArch":
        """Return the network on `skeleton.with_output_stride`. Raises its ValueErrors."""
        return replace(self, skeleton=self.skeleton.with_output_stride(output_stride))

    @property
    def lines(self) -> tuple[str, ...]:
        """Description of the network for people: its two cells and its skeleton."""
        return (f"normal    {self.normal.text}", f"reduction {self.reduction.text}", self.skeleton.text)

    # Text forms

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `kind` as JSON-able values, from which `from_dict` restores an equal object."""
        cells = {
            name: {"pairs": [list(pair) for pair in cell.pairs], "concat": list(cell.concat)}
            for name, cell in (("normal", self.normal), ("reduction", self.reduction))
        }
        return {"kind": "cell", **cells, "skeleton": self.skeleton.to_dict()}

    @staticmethod
    def from_dict(values: object) -> "CellArch":
        """Return the architecture of `to_dict`'s values. Raises ValueError on an unknown, missing or invalid field."""
        if isinstance(values, dict):
            values = {name: value for name, value in values.items() if name != "kind"}
        record = checked_fields(CellArch, values, "architecture")
        cells = {name: Cell(**checked_fields(Cell, record[name], f"{name} cell")) for name in ("normal", "reduction")}
        skeleton = CellSkeleton(**checked_fields(CellSkeleton, record.get("skeleton", {}), "skeleton"))
        return CellArch(**cells, skeleton=skeleton)

    def to_json(self) -> str:
        """Return the architecture as JSON, one line per field."""
        return json.dumps(self.to_dict(), indent=1)


def _pair(number: int, pair: object) -> Pair:
    if not isinstance(pair, list | tuple) or len(pair) != 4:
        raise ValueError(f"pair {number} must be [input, op, input, op], but got {reprlib.repr(pair)}")
    for state, op in (pair[:2], pair[2:]):
        require_int(f"an input of pair {number}", state, 0, number)
        require_choice(f"an op of pair {number}", op, OPS)
    return Pair(*pair)


def _reorderings(cell: Cell) -> Iterator[Cell]:
    """Yield the cell in each order of its pairs that may be the lexicographically first.

    A pair comes after the pairs that it uses. Each position takes the smallest possible pair; equal ones are all tried.
    """

    def extended(places: dict[int, int], done: tuple[Pair, ...]) -> Iterator[Cell]:
        free: dict[Pair, list[int]] = {}
        for state, pair in enumerate(cell.pairs, 2):
            if state not in places and pair.input1 in places and pair.input2 in places:
                free.setdefault(_written(pair, places), []).append(state)
        if not free:
            yield Cell(pairs=done, concat=tuple(sorted(places[state] for state in cell.concat)))
            return
        pair = min(free, key=lambda p: (p.input1, OPS.index(p.op1), p.input2, OPS.index(p.op2)))
        for state in free[pair]:
            yield from extended({**places, state: len(done) + 2}, (*done, pair))

    return extended({0: 0, 1: 1}, ())


def _written(pair: Pair, places: dict[int, int]) -> Pair:
    """Return `pair` with renumbered inputs, the smaller branch first."""
    branches = [(places[pair.input1], pair.op1), (places[pair.input2], pair.op2)]
    first, second = sorted(branches, key=lambda branch: (branch[0], OPS.index(branch[1])))
    return Pair(*first, *second)
