"""Where commands print."""

from rich.console import Console


def make_console() -> Console:
    """The terminal; where there is none (a log, a pipe), lines are long enough for every table."""
    console = Console()
    return console if console.is_terminal else Console(width=140)
