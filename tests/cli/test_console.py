"""All output passes through a few functions that clean it; a test finds code that bypasses them."""

import ast
import io
from pathlib import Path

import pytest
from rich.table import Table

import mnas.cli
from mnas.api.watching import FieldColumn
from mnas.cli import console as sinks
from mnas.cli.console import SafeConsole

HOSTILE = {
    "a line": "cat\nvalidation accuracy 99.99%",
    "a carriage return": "cat\rvalidation accuracy 99.99%",
    "CSI": "\x1b[2J\x1b[31mcat",
    "an 8-bit CSI": "\x9b2Jcat",
    "a link": "\x1b]8;;http://evil\x07cat\x1b]8;;\x07",
    "the clipboard": "\x1b]52;c;ZXZpbA==\x07cat",
    "colour markup": "[red]cat[/red]",
    "link markup": "[link=http://evil]cat[/link]",
    "closing markup": "cat[/]",
    "an emoji code": ":cat:",
    "a line separator": "cat\u2028validation accuracy 99.99%",
    "an override": "\u202etac",
    "a byte": "cat\udcff",
}


def terminal(**options) -> SafeConsole:
    return SafeConsole(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=200, **options)


def printed(console: SafeConsole) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def shown(text: str) -> str:
    """Return the expected text, with each of these characters as its escape."""
    for sign in "\n\r\x1b\x07\x9b":
        text = text.replace(sign, f"\\x{ord(sign):02x}")
    for sign in "\u2028\u202e\udcff":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@pytest.mark.parametrize("name", HOSTILE)
def test_a_string_is_one_line_of_plain_text_wherever_it_is_printed(name, capsys):
    text = HOSTILE[name]
    line = shown(text)
    console = terminal()
    console.print(text)
    assert printed(console) == f"{line}\n"
    console = terminal()
    console.lines(text, text)
    assert printed(console) == f"{line}\n{line}\n"
    console = terminal()
    table = Table(text, box=None, title=text, caption=text, show_footer=True)
    table.columns[0].footer = text
    table.add_row(text)
    console.print(table)
    assert "\x1b]" not in printed(console)
    assert "\x9b" not in printed(console)
    assert sum(line in row for row in printed(console).split("\n")) == 5
    sinks.say(text)
    sinks.complain(text)
    out, err = capsys.readouterr()
    assert (out, err) == (f"{line}\n", f"mnas: {line}\n")


@pytest.mark.parametrize("name", HOSTILE)
def test_spinners_and_bars_show_plain_text(name):
    import rich.progress

    text = HOSTILE[name]
    console = terminal()
    with console.status(text) as status:
        status.update(text)
        assert status.renderable.text.plain == shown(text)
    assert status.status.plain == shown(text)
    with rich.progress.Progress(FieldColumn("line"), console=console) as bar:
        task = bar.add_task("count", total=1, line=text)
        bar.refresh()
        assert FieldColumn("line").render(bar.tasks[task]).plain == shown(text)
    for sequence in ("\x1b]", "\x1b[2J", "\x9b", "\x07", "\u202e"):
        assert sequence not in printed(console)


def test_json_keeps_the_values_and_escapes_them(capsys):
    import json

    sinks.say_json(list(HOSTILE.values()))
    out = capsys.readouterr().out
    assert json.loads(out) == list(HOSTILE.values())
    assert out.isascii()
    assert out.count("\n") == 1


ALLOWED = {
    ("completion.py", "print"): 1,
    ("help.py", "print"): 1,
    ("main.py", "print"): 3,
    ("streams.py", "print"): 1,
}
"""A shell's script, the help of a command, the list of commands, the version, a traceback, and the line of an error,
cleaned before."""


def test_commands_print_only_through_the_console():
    """A raw `print`, another console of rich or its markup in mnas/cli would show text unchanged."""
    found: dict[tuple[str, str], int] = {}
    for file in sorted(Path(mnas.cli.__file__).parent.glob("*.py")):
        if file.name == "console.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                raw = name in ("print", "Console", "rich.console.Console", "rich.print", "Text.from_markup")
                raw |= name.endswith(("stdout.write", "stderr.write", "TextColumn"))
                raw |= any(word.arg in ("markup", "emoji") for word in node.keywords)
                if raw:
                    found[file.name, name] = found.get((file.name, name), 0) + 1
            if isinstance(node, ast.ImportFrom) and node.module == "rich.markup":
                found[file.name, "rich.markup"] = 1
    assert found == ALLOWED
