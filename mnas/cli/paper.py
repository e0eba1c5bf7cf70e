"""`mnas paper ...`: print the paper's tables, published numbers beside those of mnas."""

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table

from mnas.atomic import claimed, write_atomic
from mnas.cli.console import complain, make_console, say_json
from mnas.paper.settings import PaperSettings
from mnas.paper.table import PaperTable


@dataclass(frozen=True, kw_only=True)
class PaperTable3Command:
    """Print the paper's Table 3, detectors on COCO: published numbers, parameters and multiply-accumulates counted
    here, and latencies measured here."""

    settings: Annotated[PaperSettings, Parameter(name="*")]
    """Latency."""
    json: bool = False
    """Print one JSON object instead of tables."""
    save: Path | None = None
    """Also write the table to this new .csv file."""

    def run(self) -> None:
        """Measure and print. Raises ValueError for an unknown device, or a file that exists."""
        from mnas.paper.table3 import table3  # torchvision takes seconds to import; help does not need it

        if self.save is not None and self.save.suffix != ".csv":
            raise ValueError(f"--save must name a .csv file, but got {str(self.save)!r}")
        if self.save is not None and (self.save.exists() or not self.save.parent.is_dir()):
            fault = "already exists" if self.save.exists() else "is in a folder that does not exist"
            raise ValueError(f"--save must name a new file, but {str(self.save)!r} {fault}")
        with claimed([] if self.save is None else [self.save], "--save"):
            console = make_console()
            with console.status("", spinner="line") as status:
                table = table3(self.settings, progress=status.update, say=complain)
            if self.save is not None:
                write_atomic(self.save, table.to_csv(), new=True)
            if self.json:
                say_json(table.to_dict())
                return
            print_paper_table(console, table)
            if self.save is not None:
                console.print(f"  wrote {self.save}")


def print_paper_table(console: Console, table: PaperTable) -> None:
    """Print a table in parts, then the reasons for missing values, by their letters, and the notes."""
    singles = string.ascii_lowercase
    letters = dict(zip(table.reasons, [*singles, *(a + b for a in singles for b in singles)], strict=False))
    console.print(table.title)
    for title, columns in table.parts.items():
        part = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
        for column in columns:
            first = column is columns[0]
            part.add_column(column.title, justify="left" if first else "right", no_wrap=first)
        for row in table.rows:
            cells = [row[column.key] for column in columns]
            part.add_row(*(f"({letters[cell.reason]})" if cell.reason else cell.text for cell in cells))
        console.print(part)
    for reason, letter in letters.items():
        console.print(f"  ({letter}) {reason}")
    for note in table.notes:
        console.print(f"  {note}")
