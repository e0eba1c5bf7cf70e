"""Show the work of a command: a live line in a terminal, plain lines elsewhere."""

import contextlib
from collections.abc import Callable, Iterator

import rich.progress
from rich.console import Console

from mnas.api.watching import FieldColumn, LineWatcher, bar_watcher
from mnas.search.progress import Watcher


@contextlib.contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """Yield the watcher that suits the console."""
    if not console.is_terminal:
        yield LineWatcher(console)
        return
    with bar_watcher(console) as watcher:
        yield watcher


@contextlib.contextmanager
def counting(console: Console, total: int) -> Iterator[Callable[[int, str], None]]:
    """Yield a function of the number done and the line to print last: a bar in a terminal, lines elsewhere."""
    if not console.is_terminal:

        def say(done: int, line: str) -> None:
            if line:
                console.print(f"[{done}/{total}] {line}")

        yield say
        return
    columns = (
        rich.progress.BarColumn(bar_width=20),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        FieldColumn("line"),
    )
    with rich.progress.Progress(*columns, console=console) as bar:
        task = bar.add_task("count", total=total, line="")
        yield lambda done, line: bar.update(task, completed=done, line=line)
