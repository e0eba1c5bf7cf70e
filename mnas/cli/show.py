"""`mnas show`: what an architecture consists of and costs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from mnas.arch import Arch
from mnas.atomic import write_atomic
from mnas.names import resolve_arch, searched_as
from mnas.nn.cost import Shape, by_layer, cost
from mnas.report.diagram import arch_svg


@dataclass(frozen=True, kw_only=True)
class ShowCommand:
    """Print an architecture's layers with their shapes, parameters and multiply-accumulates (MACs), or draw it."""

    arch: tyro.conf.Positional[str]
    """A name (mnasnet-a1, mnasnet-a1@0.5, mnasnet-small/s8), a trial (runs/NAME#17), a .json file, or block strings."""
    input_size: int | Literal["auto"] = "auto"
    """Side of the square image in pixels; auto: a trial's own, 224 for others."""
    classes: int | Literal["auto"] = "auto"
    """Outputs of the classifier; auto: a trial's own, 1000 for others."""
    save: Path | None = None
    """Also draw it as a block diagram (SVG) into this file."""

    def run(self) -> None:
        """Print the table, and write the drawing where asked."""
        if self.save is not None and self.save.suffix != ".svg":
            raise ValueError(f"--save must name an .svg file, but got {str(self.save)!r}")
        arch = resolve_arch(self.arch)
        input_size, classes = searched_as(self.arch)
        input_size = input_size if self.input_size == "auto" else self.input_size
        classes = classes if self.classes == "auto" else self.classes
        console = Console()
        console.print(cost_table(arch, input_size, classes))
        console.print("  " + "\n  ".join(arch.block_strings), highlight=False, markup=False, soft_wrap=True)
        console.print(f"  fingerprint {arch.fingerprint}, output stride {arch.output_stride}", highlight=False)
        if self.save is not None:
            write_atomic(self.save, arch_svg(arch, input_size))
            console.print(f"  drawn to {self.save}", highlight=False, markup=False, soft_wrap=True)


def cost_table(arch: Arch, input_size: int, num_classes: int) -> Table:
    """One row for each layer and the sum. Raises ValueError where the image is too small."""
    whole = cost(arch, input_size, num_classes)
    table = Table("layer", "op", "output", box=box.SIMPLE, show_footer=True)
    table.add_column("params", footer=f"{whole.params:,}", justify="right")
    table.add_column("MACs", footer=f"{whole.macs:,}", justify="right")
    table.columns[0].footer = "total"
    table.columns[1].footer = f"input {_text((3, input_size, input_size))}"
    for row in by_layer(arch, whole):
        table.add_row(row.name, row.op, _text(row.output_shape), f"{row.params:,}", f"{row.macs:,}")
    return table


def _text(shape: Shape) -> str:
    channels, height, width = shape
    return f"{height}x{width}x{channels}"
