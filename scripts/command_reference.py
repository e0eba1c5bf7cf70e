"""Print docs/reference/command-line.md: every command with all its options, from the dataclasses that define them."""

import importlib
from collections.abc import Iterator

from mnas.cli.guide import GUIDES, Guide
from mnas.cli.help import grouped, kind_of, note_of, usage_of
from mnas.cli.main import COMMANDS
from mnas.cli.options import Option, options_of
from mnas.cli.parsing import preset_values

INTRODUCTION = """\
# Command line

<!-- scripts/command_reference.py writes this page: run `make reference` instead of editing it. -->

`mnas COMMAND --help` prints the most used options of a command, `--help-all` prints all of them.
Every command takes `--debug`, which prints the Python traceback of an error.
Options that several commands share have the same name and meaning everywhere.
[Shell](shell.md) describes exit codes, signals and completion.
"""


def main() -> None:
    print(INTRODUCTION)
    print("| Command | Purpose |\n|---|---|")
    for words, (_, purpose) in COMMANDS.items():
        print(f"| [`mnas {words}`](#mnas-{words.replace(' ', '-')}) | {purpose} |")
    for words, (place, _) in COMMANDS.items():
        module, _, name = place.partition(":")
        print("\n".join(section(words, getattr(importlib.import_module(module), name))))


def section(words: str, command: type) -> Iterator[str]:
    """Yield the lines of a command's section."""
    guide = GUIDES.get(words, Guide())
    options = options_of(command, preset_values(command, {}))
    yield f"\n## mnas {words}\n"
    yield from " ".join((command.__doc__ or "").split()).replace(". ", ".\n").split("\n")
    yield f"\n```text\n{' '.join(usage_of(words, options))}\n```"
    if guide.examples:
        yield "\n".join(("\n```bash", *guide.examples, "```"))
    for heading, members in grouped(guide, options, everything=True):
        yield f"\n**{heading}**\n\n| | |\n|---|---|"
        yield from map(row, members)


def row(option: Option) -> str:
    """Return an option as a row of a table."""
    flag = option.flag if option.positional else f"{option.flag} {kind_of(option)}".rstrip()
    text = " ".join(part for part in (option.help.removesuffix(".") + ".", note_of(option)) if part)
    return f"| `{escaped(flag)}` | {escaped(text)} |"


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main()
