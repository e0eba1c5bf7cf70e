"""The cell space: stacks of a normal and a reduction cell of a few pairs, as in NASNet.

Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition" (CVPR 2018, arXiv:1707.07012), section
3, and its list of 13 operations. Departures (docs/explanation/departures.md): the two states of a pair are added, never
concatenated; the stack is NASNet-A mobile's, where the paper searched a smaller one on CIFAR-10.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mnas.architecture import Architecture
from mnas.cell_arch import MAX_PAIRS, OPS, Cell, CellArch, CellSkeleton, Pair, unused_states
from mnas.require import require_choice, require_int
from mnas.space.skeleton import MOBILENETV2, Skeleton
from mnas.space.space import Decision, Space

Concat = Literal["unused", "all", "chosen"]

NASNET_OPS = OPS[:13]
"""Operations of the paper, section 3."""
OP_SETS = {
    "nasnet": NASNET_OPS,
    # arXiv:1712.00559, section 3.1
    "pnas": ("identity", "conv1x7", "dil3", "avg3", "max3", "sep3", "sep5", "sep7"),
    # arXiv:1806.09055, section 3.1, without "zero", which finished cells do not contain
    "darts": ("identity", "avg3", "max3", "sep3", "sep5", "dilsep3", "dilsep5"),
}
"""Name -> operations of a branch."""
SEARCHED = CellSkeleton(dropout=0.2, bn_momentum=0.01)
"""NASNet-A mobile's skeleton, with the dropout and batch-norm momentum of the other spaces for a fair comparison."""
CELLS = ("normal", "reduction")


@dataclass(frozen=True, kw_only=True)
class CellSpace(Space):
    """Two cells on a skeleton, each of `pairs` pairs of two inputs and two operations.

    Raises ValueError, naming the field, if one is out of range.
    """

    skeleton: CellSkeleton = SEARCHED
    pairs: int = 5
    ops: tuple[str, ...] = NASNET_OPS
    """Operations of a branch, or a name in `OP_SETS`; sorted in the order of `mnas.cell_arch.OPS`."""
    concat: Concat = "unused"
    """Rule for the states in a cell's output: the unused sums (NASNet), all sums (PNASNet, DARTS), or the unused sums
    and any chosen states."""

    def __post_init__(self) -> None:
        if type(self.name) is not str or not self.name.isprintable() or not 1 <= len(self.name) <= 100:
            raise ValueError(f"name must be 1 to 100 characters on one line, but got {self.name!r}")
        require_int("pairs", self.pairs, 1, MAX_PAIRS)
        require_choice("concat", self.concat, get_args(Concat))
        ops: object = self.ops
        if isinstance(ops, str):
            require_choice("ops", ops, tuple(OP_SETS))
            ops = OP_SETS[ops]
        if not isinstance(ops, list | tuple) or not ops:
            raise ValueError(f"ops must be a list of at least one operation, or the name of a set, but got {ops!r}")
        for op in ops:
            require_choice("an op", op, OPS)
        if len(set(ops)) < len(ops):
            raise ValueError(f"ops must not repeat an operation, but got {', '.join(ops)}")
        object.__setattr__(self, "ops", tuple(sorted(ops, key=OPS.index)))

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Decisions `normal.pair1.input1`, `op1`, `input2`, `op2`, `normal.pair2.input1`, ..., then `reduction`'s.

        An input is a state's number: 0 and 1 are the outputs of the cells before, 2 the first pair's sum. With a chosen
        concat, `normal.concat0`, ... come after a cell's pairs.
        """
        return tuple(decision for cell in CELLS for decision in self._decisions(cell))

    def _decisions(self, cell: str) -> Iterator[Decision]:
        for number in range(1, self.pairs + 1):
            for branch in (1, 2):
                yield Decision(f"{cell}.pair{number}.input{branch}", tuple(range(number + 1)))
                yield Decision(f"{cell}.pair{number}.op{branch}", self.ops)
        if self.concat == "chosen":  # the last state is always in the output
            yield from (Decision(f"{cell}.concat{state}", (0, 1)) for state in range(self.pairs + 1))

    @property
    def reference_skeleton(self) -> Skeleton:
        """MobileNetV2's skeleton, scaled in width as the cells are relative to NASNet-A mobile's 44 filters."""
        scaled = MOBILENETV2.scaled(self.skeleton.filters / CellSkeleton().filters)
        return scaled.with_output_stride(min(self.skeleton.output_stride, scaled.output_stride))

    @property
    def distinct(self) -> int:
        """Number of different networks; with a chosen concat an upper bound, in which every choice counts."""
        free = 2 ** (self.pairs + 1) if self.concat == "chosen" else 1
        return (distinct_cells(self.pairs, len(self.ops)) * free) ** 2

    @property
    def distinct_is_exact(self) -> bool:
        return self.concat != "chosen"

    def decode(self, indices: Sequence[int]) -> CellArch:
        self.check_indices(indices)
        half = len(indices) // 2
        return CellArch(
            normal=self._cell(indices[:half]), reduction=self._cell(indices[half:]), skeleton=self.skeleton
        ).canonical()

    def encode(self, arch: Architecture) -> tuple[int, ...]:
        if not isinstance(arch, CellArch):
            raise ValueError(f"space {self.name} has networks of cells, but got one of blocks")
        if arch.skeleton != self.skeleton:
            raise ValueError(
                f"the skeleton must be that of space {self.name} ({self.skeleton.text}), but got {arch.skeleton.text}"
            )
        arch = arch.canonical()
        return (*self._indices("normal", arch.normal), *self._indices("reduction", arch.reduction))

    def to_dict(self) -> dict[str, Any]:
        """Return the space in the form of a TOML file."""
        return {
            "kind": "cell",
            "name": self.name,
            "pairs": self.pairs,
            "ops": list(self.ops),
            "concat": self.concat,
            "skeleton": self.skeleton.to_dict(),
        }

    def _cell(self, indices: Sequence[int]) -> Cell:
        branches = zip(indices[: 4 * self.pairs : 2], indices[1 : 4 * self.pairs : 2], strict=True)
        sides = [(state, self.ops[op]) for state, op in branches]
        pairs = tuple(Pair(*one, *other) for one, other in zip(sides[::2], sides[1::2], strict=True))
        chosen = [state for state, is_chosen in enumerate(indices[4 * self.pairs :]) if is_chosen]
        return Cell(pairs=pairs, concat=tuple(sorted({*self._always(pairs), *chosen})))

    def _always(self, pairs: Sequence[Pair]) -> tuple[int, ...]:
        """Return the states that are in the output of a cell of `pairs` for any choice of concat."""
        return tuple(range(2, self.pairs + 2)) if self.concat == "all" else unused_states(pairs)

    def _indices(self, name: str, cell: Cell) -> list[int]:
        where = f"the {name} cell is not in space {self.name}"
        if len(cell.pairs) != self.pairs:
            raise ValueError(f"{where}: it must have {self.pairs} pairs, but got {len(cell.pairs)}")
        indices = []
        for number, pair in enumerate(cell.pairs, 1):
            for state, op in (pair[:2], pair[2:]):
                if op not in self.ops:
                    raise ValueError(
                        f"{where}: an op of pair {number} must be one of {', '.join(self.ops)}, but got {op}"
                    )
                indices += [state, self.ops.index(op)]
        always = self._always(cell.pairs)
        if self.concat == "chosen":
            return indices + [int(s in cell.concat and s not in always) for s in range(self.pairs + 1)]
        if cell.concat != always:
            raise ValueError(f"{where}: concat must be the states {list(always)}, but got {list(cell.concat)}")
        return indices


def distinct_cells(pairs: int, ops: int) -> int:
    """Return the number of different cells, regardless of the order of pairs and of their branches.

    By Burnside's lemma it is the mean, over all permutations of the pairs, of the number of cells that a permutation
    leaves unchanged. Pairs have arbitrary labels here; a cell is any arrangement in which no pair depends on itself.
    """
    total = 0
    for cycles in _partitions(pairs, pairs):
        counts = Counter(cycles)
        alike = math.prod(length**count * math.factorial(count) for length, count in counts.items())
        total += math.factorial(pairs) // alike * _fixed(cycles, ops)
    return total // math.factorial(pairs)


@functools.cache
def _fixed(cycles: tuple[int, ...], ops: int) -> int:
    """Return the number of cells that a permutation of the pairs with cycles of these lengths leaves unchanged.

    Every cell has unused pairs, and they form whole cycles, so this is inclusion and exclusion over sets of cycles.
    """
    if not cycles:
        return 1
    total = 0
    for mask in range(1, 2 ** len(cycles)):
        unused = [length for i, length in enumerate(cycles) if mask >> i & 1]
        rest = tuple(length for i, length in enumerate(cycles) if not mask >> i & 1)
        ways = math.prod(_unordered(length, rest, ops) for length in unused)
        total += (-1) ** (len(unused) + 1) * ways * _fixed(rest, ops)
    return total


def _unordered(length: int, rest: tuple[int, ...], ops: int) -> int:
    """Return the number of unordered pairs of branches that `length` steps along all cycles leave unchanged.

    Each branch is on an input or a pair in `rest`. The steps keep both branches in place, or swap them.
    """
    stay = ops * (2 + sum(cycle for cycle in rest if length % cycle == 0))
    swap = ops * sum(math.gcd(length, c) for c in rest if c == 2 * math.gcd(length, c))
    return stay * (stay + 1) // 2 + swap


def _partitions(number: int, largest: int) -> Iterator[tuple[int, ...]]:
    """Yield all ways to write `number` as a sum of positive integers in descending order, up to `largest`."""
    if number == 0:
        yield ()
    for first in range(min(number, largest), 0, -1):
        for rest in _partitions(number - first, first):
            yield (first, *rest)
