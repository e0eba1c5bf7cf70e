"""`mnas space`: print a search space and its number of networks."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

from rich import box
from rich.table import Table

from mnas.arch import Arch
from mnas.cell_arch import CellSkeleton
from mnas.cli.console import make_console
from mnas.names import resolve_arch
from mnas.space.cell import CellSpace
from mnas.space.cuts import count_cuts, values_of_cuts
from mnas.space.factorized import LATER_CHOICES, BlockChoices, FactorizedSpace
from mnas.space.named import load_space
from mnas.space.per_layer import PerLayerSpace
from mnas.space.skeleton import Skeleton
from mnas.space.space import Choice, Space

PAPER_CHOICES = 432
"""Choices per block, "a typical case" in section 4.1 of the paper."""


@dataclass(frozen=True, kw_only=True)
class SpaceCommand:
    """Print a search space: its decisions, its skeleton, and how many networks it has."""

    space: str = dataclasses.field(default="mnasnet", kw_only=False)
    """Named space (mnasnet, mnasnet-no-se, per-layer, mobilenetv4, cell), path of a .toml file, or module:factory (a
    function that returns a space)."""
    parent: str = ""
    """Print the networks that can be cut from this one instead, as mnas search --parent does: a name, a trial, a file
    or an architecture string."""

    def run(self) -> None:
        """Print the tables."""
        if self.parent:
            print_cuts(self.parent)
            return
        space = load_space(self.space, option="SPACE")
        console = make_console()
        console.print(f"space {space.name}")
        if isinstance(space, CellSpace):
            console.print(cell_table(space))
            frame, comparison = cell_frame(space.skeleton), cell_lines(space)
        else:
            blocks = space.blocks if isinstance(space, PerLayerSpace) else space
            assert isinstance(blocks, FactorizedSpace)
            console.print(choices_table(blocks), skeleton_table(blocks))
            frame = block_frame(blocks.skeleton)
            comparison = factorized_lines(blocks) if blocks is space else flat_lines(blocks)
        lines = [frame, *size_lines(space), *comparison]
        console.lines(*lines)


def print_cuts(name: str) -> None:
    """Print the networks that can be cut from a parent. Raises ValueError for one of cells."""
    arch = resolve_arch(name)
    if not isinstance(arch, Arch):
        raise ValueError(f"--parent must be a network of blocks, as cells cannot be cut, but got {name}")
    table = Table("block", "op", "layers", "kernel", "expansion", "se_ratio", "filters", box=box.SIMPLE)
    for place, values in values_of_cuts(arch):
        op = arch.blocks[int(place) - 1].op if place.isdigit() else "conv"
        inside = values.get("expansion") or values.get("mid_filters", ())
        columns = (values.get("layers", ()), values.get("kernel", ()), inside, values.get("se_ratio", ()))
        table.add_row(place, op, *(_listed(column) for column in (*columns, values["filters"])))
    console = make_console()
    console.print(f"networks cut from {name}; the first value of each decision is the parent's")
    console.print(table)
    decisions = [values for _, fields in values_of_cuts(arch) for values in fields.values() if len(values) > 1]
    console.lines(
        f"{len(decisions)} decisions, at most {count_cuts(arch):.2e} different networks at each input size",
        "kept: the ops, strides, activations and skips, and the widths of blocks whose result is not linear",
    )


def cell_table(space: CellSpace) -> Table:
    """Return the choices of each decision of a cell; both cells have the same."""
    table = Table("decision", "choices", box=box.SIMPLE)
    for decision in space.decisions:
        cell, _, name = decision.name.partition(".")
        if cell == "normal" and not name.endswith("2"):
            table.add_row(
                name.replace("input1", "input1, input2").replace("op1", "op1, op2"), _listed(decision.choices)
            )
    return table


def choices_table(space: FactorizedSpace) -> Table:
    """Return the choices of each decision, and the blocks that have them."""
    table = Table("decision", "blocks", "choices", box=box.SIMPLE)
    for field in fields(BlockChoices):
        blocks: dict[tuple[Choice, ...], list[str]] = {}
        for number, choices in enumerate(space.block_choices, 1):
            blocks.setdefault(choices.by_field[field.name], []).append(str(number))
        if list(blocks) == [LATER_CHOICES.get(field.name)]:
            continue
        form = {"layers": "{:+d}", "filters": "x{}"}.get(field.name, "{}")
        for offered, numbers in blocks.items():
            where = "all" if len(blocks) == 1 else " ".join(numbers)
            table.add_row(field.name, where, "  ".join(form.format(_plain(choice)) for choice in offered))
    return table


def skeleton_table(space: FactorizedSpace) -> Table:
    """Return the skeleton that the choices are relative to, with the resulting filters and layers."""
    table = Table("block", "stride", "filters", "layers", "filter choices", "layer choices", box=box.SIMPLE)
    skeleton = space.skeleton
    table.add_row("stem", str(skeleton.stem_stride), str(skeleton.stem_filters), "1", "", "")
    for block, (filters, layers, stride) in enumerate(
        zip(skeleton.filters, skeleton.layers, skeleton.strides, strict=True)
    ):
        choices = space.block_choices[block]
        widths = " ".join(str(space.filters(block, c)) for c in choices.filters)
        depths = " ".join(str(space.layers(block, c)) for c in choices.layers)
        table.add_row(str(block + 1), str(stride), str(filters), str(layers), widths, depths)
    if skeleton.head_filters:
        table.add_row("head", "1", str(skeleton.head_filters), "1", "", "")
    return table


def block_frame(s: Skeleton) -> str:
    """Return the fixed fields of a skeleton of blocks."""
    head = ", no head" if not s.head_filters else ", head after the pool" if s.head_pooled else ""
    norm = ", head with a bias instead of batch norm" if s.head_filters and not s.head_norm else ""
    return (
        f"output stride {s.output_stride}; {s.activation}, dropout {s.dropout}, padding {s.padding}, "
        f"batch norm epsilon {s.bn_epsilon} and momentum {s.bn_momentum}{head}{norm}"
    )


def cell_frame(s: CellSkeleton) -> str:
    """Return the fixed fields of a stack of cells."""
    return (
        f"{s.text}; output stride {s.output_stride}; dropout {s.dropout}, "
        f"batch norm epsilon {s.bn_epsilon} and momentum {s.bn_momentum}"
    )


def size_lines(space: Space) -> list[str]:
    """Return the number of combinations and of networks."""
    at_most = "" if space.distinct_is_exact else "at most "
    reason = ", because some choices make no difference" if space.distinct < space.size else ""
    return [
        f"size      {space.size:,} combinations of {len(space.decisions)} decisions",
        f"distinct  {at_most}{space.distinct:,} different networks{reason}",
    ]


def cell_lines(space: CellSpace) -> list[str]:
    """Return the number of combinations for one cell, and the meaning of its output and inputs."""
    one = math.isqrt(space.size)
    outputs = {
        "unused": "its unused sums",
        "all": "all its sums",
        "chosen": "its unused sums and any chosen states",
    }
    return [
        f"each of the two cells has {one:,} ~ 10^{int(math.log10(one))} combinations",
        f"the output of a cell concatenates {outputs[space.concat]}",
        "state 0 is the output of the previous cell, 1 that of the cell before it, 2 the sum of the first pair",
    ]


def factorized_lines(space: FactorizedSpace) -> list[str]:
    """Return the comparison with a flat space, as in the paper (section 4.1)."""
    sizes = [choices.size for choices in space.block_choices]
    flat = _of_layers(space)
    paper, paper_flat = [PAPER_CHOICES] * 5, [PAPER_CHOICES] * 15
    return [
        f"factorized space, with choices for each block: {_powers(sizes)} ~ {_ten(sizes)}",
        f"flat space, with choices for each layer: {_powers(flat)} ~ {_ten(flat)}",
        f"the paper's typical case, S = {PAPER_CHOICES} choices for B = 5 blocks of N = 3 layers: "
        f"S^B = {_powers(paper)} ~ {_ten(paper)}, flat S^(B*N) = {_powers(paper_flat)} ~ {_ten(paper_flat)}",
    ]


def flat_lines(space: FactorizedSpace) -> list[str]:
    """Return a flat space's size beside the paper's, which raises a block's choices and depths to the layers."""
    flat = _of_layers(space)
    paper, here = [PAPER_CHOICES] * 15, [PAPER_CHOICES] * len(flat)
    return [
        f"flat space, with choices for each layer and a fixed number of layers: {_powers(flat)} ~ {_ten(flat)}",
        f"the paper counts S^(B*N), where the S = {PAPER_CHOICES} choices of a block include three depths: "
        f"{_powers(paper)} ~ {_ten(paper)} in its typical case (B = 5, N = 3), "
        f"{_powers(here)} ~ {_ten(here)} for the layers of this skeleton",
    ]


def _of_layers(space: FactorizedSpace) -> list[int]:
    """Return the choices of each block, repeated for each of the skeleton's layers of it."""
    pairs = zip(space.block_choices, space.skeleton.layers, strict=True)
    return [choices.size for choices, layers in pairs for _ in range(layers)]


def _plain(choice: Choice) -> Choice:
    """Return a choice as a TOML file writes it."""
    return str(choice).lower() if isinstance(choice, bool) else choice


def _listed(choices: Sequence[Choice]) -> str:
    return "  ".join(map(str, choices))


def _powers(sizes: list[int]) -> str:
    return " x ".join(f"{size}^{count}" if count > 1 else str(size) for size, count in Counter(sizes).items())


def _ten(sizes: list[int]) -> str:
    return f"10^{int(sum(map(math.log10, sizes)))}"
