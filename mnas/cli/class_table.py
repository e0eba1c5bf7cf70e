"""Print the class table, and lines that may be empty."""

from rich.console import Console

from mnas.data.listing.class_lines import class_table_lines
from mnas.data.listing.class_table import ClassTable


def print_class_table(console: Console, table: ClassTable, *scored: str) -> None:
    """Print the table.

    Args:
        scored: parts whose accuracy the command reports; the last line gives the score of their largest class.
    """
    for line in class_table_lines(table, *scored):
        print_line(console, line)


def print_line(console: Console, line: str) -> None:
    """Print a line unchanged; print nothing if it is empty."""
    if line:
        console.print(line)
