"""Print to the terminal. All text is shown unchanged: no markup, no emoji codes, no control characters."""

import json
import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text

from mnas.text import clean


class SafeConsole(Console):
    """A console that prints every string as one line of plain text; several lines are several arguments of `lines`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return `text` cleaned; all printed text and table cells pass through here."""
        options |= {"markup": False, "emoji": False, "highlight": False, "highlighter": None}
        return super().render_str(clean(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print strings as unbroken lines, tables at the width of the terminal."""
        if all(isinstance(one, str) for one in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **{"markup": False, "highlight": False, "emoji": False} | options)

    def lines(self, *texts: str) -> None:
        """Print each text as a line of its own."""
        for text in texts:
            self.print(text)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """Return a spinner with a text beside it."""
        return SafeStatus(_plain(status), console=self, **options)


class SafeStatus(Status):
    """A status whose text is not markup."""

    def update(self, status: RenderableType | None = None, **options: Any) -> None:
        super().update(None if status is None else _plain(status), **options)


class Steps:
    """The steps of a longer piece of work: a spinner with the step's name, which ends when a line is printed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None

    @property
    def console(self) -> Console:
        """Return the console without the spinner, for a live display of another kind."""
        self._stop()
        return self._console

    def step(self, text: str) -> None:
        """Show the name of the step beside the spinner."""
        if self._status is None:
            self._status = self._console.status(text, spinner="line")
            self._status.start()
        else:
            self._status.update(text)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text)

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()


def _plain(status: RenderableType) -> RenderableType:
    return Text(clean(status)) if isinstance(status, str) else status


def make_console(*, stderr: bool = False, quiet: bool = False) -> SafeConsole:
    """Return the terminal's console; in a log or a pipe, lines are long enough for every table."""
    console = SafeConsole(stderr=stderr, quiet=quiet)
    return console if console.is_terminal else SafeConsole(stderr=stderr, quiet=quiet, width=140)


def say(text: str) -> None:
    """Print `text` as one line, whatever it contains."""
    print(clean(text), flush=True)


def say_json(value: object) -> None:
    """Print `value` as one line of JSON, with all but ASCII escaped."""
    print(json.dumps(value), flush=True)


def complain(text: str) -> None:
    """Print one line to standard error, as `mnas: text`."""
    print(f"mnas: {clean(text)}", file=sys.stderr, flush=True)
