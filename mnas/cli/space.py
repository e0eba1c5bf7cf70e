"""`mnas space`: a search space, and how many networks are in it."""

import math
from collections import Counter
from dataclasses import dataclass, fields

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from mnas.space.factorized import BlockChoices, FactorizedSpace
from mnas.space.named import load_space
from mnas.space.space import Choice


@dataclass(frozen=True, kw_only=True)
class SpaceCommand:
    """Print a search space: its decisions, its skeleton, and how many networks it has."""

    space: tyro.conf.Positional[str] = "mnasnet"
    """A name (mnasnet, mnasnet-no-se) or the path of a .toml file (docs/space.md)."""

    def run(self) -> None:
        """Print the tables."""
        space = load_space(self.space)
        console = Console()
        console.print(f"space {space.name}", highlight=False, markup=False)
        console.print(choices_table(space), skeleton_table(space))
        console.print(size_text(space), highlight=False, markup=False, soft_wrap=True)


def choices_table(space: FactorizedSpace) -> Table:
    """The choices of each decision, and which blocks have them."""
    table = Table("decision", "blocks", "choices", box=box.SIMPLE)
    for field in fields(BlockChoices):
        blocks: dict[tuple[Choice, ...], list[str]] = {}
        for number, choices in enumerate(space.block_choices, 1):
            blocks.setdefault(getattr(choices, field.name), []).append(str(number))
        form = {"layers": "{:+d}", "filters": "x{}"}.get(field.name, "{}")
        for offered, numbers in blocks.items():
            where = "all" if len(blocks) == 1 else " ".join(numbers)
            table.add_row(field.name, where, "  ".join(form.format(choice) for choice in offered))
    return table


def skeleton_table(space: FactorizedSpace) -> Table:
    """What the choices are relative to, and the filters and layers that they come to."""
    table = Table("block", "stride", "filters", "layers", "choices of filters", "of layers", box=box.SIMPLE)
    skeleton = space.skeleton
    table.add_row("stem", str(skeleton.stem_stride), str(skeleton.stem_filters), "1", "", "")
    for block, (filters, layers, stride) in enumerate(
        zip(skeleton.filters, skeleton.layers, skeleton.strides, strict=True)
    ):
        choices = space.block_choices[block]
        widths = " ".join(str(space.filters(block, c)) for c in choices.filters)
        depths = " ".join(str(space.layers(block, c)) for c in choices.layers)
        table.add_row(str(block + 1), str(stride), str(filters), str(layers), widths, depths)
    table.add_row("head", "1", str(skeleton.head_filters), "1", "", "")
    return table


def size_text(space: FactorizedSpace) -> str:
    """Fixed fields, size, and the comparison with a flat space, as the paper makes it (section 4.1)."""
    s = space.skeleton
    sizes = [choices.size for choices in space.block_choices]
    flat = [size for size, layers in zip(sizes, s.layers, strict=True) for _ in range(layers)]
    paper, paper_flat = [432] * 5, [432] * 15
    return "\n".join(
        [
            f"output stride {s.output_stride}; {s.activation}, dropout {s.dropout}, padding {s.padding}, "
            f"batch norm epsilon {s.bn_epsilon} and momentum {s.bn_momentum}",
            f"size      {space.size:,} combinations of {len(space.decisions)} decisions",
            f"distinct  {space.distinct:,} different networks, as some choices make no difference",
            f"factorized, a choice for each block: {_powers(sizes)} ~ {_ten(sizes)}; "
            f"flat, for each layer: {_powers(flat)} ~ {_ten(flat)}",
            "the paper's typical case, S = 432 choices, B = 5 blocks of N = 3 layers: "
            f"S^B = {_powers(paper)} ~ {_ten(paper)}, flat S^(B*N) = {_powers(paper_flat)} ~ {_ten(paper_flat)}",
        ]
    )


def _powers(sizes: list[int]) -> str:
    return " x ".join(f"{size}^{count}" if count > 1 else str(size) for size, count in Counter(sizes).items())


def _ten(sizes: list[int]) -> str:
    return f"10^{int(sum(map(math.log10, sizes)))}"
