"""What `mnas COMMAND --help` prints: the options people need first, and two examples; `--help-all` prints all."""

import math
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mnas.cli.guide import GUIDES, Guide
from mnas.cli.options import REQUIRED, Option, members, options_of
from mnas.cli.parsing import given_values, preset_values

HELP = ("-h", "--help")
HELP_ALL = "--help-all"

_KINDS = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}
_MOST_COLUMNS = 100
_FEWEST_COLUMNS = 60
_LONGEST_CHOICES = 22
_FLAGS_WIDTH = 26
"""Columns of an option's flag and type; a longer one takes a line of its own."""
_SHORT_LINES = 2
"""Lines of a description in the short help, beyond which its last clauses are left to `--help-all`."""


def wants_help(arguments: Sequence[str]) -> bool:
    """Return whether a command's arguments ask for its help."""
    return any(word in (*HELP, HELP_ALL) for word in _before_values(arguments))


def print_command_help(command: type, words: str, arguments: Sequence[str]) -> None:
    """Print the help of a command, with the defaults of the preset that the other arguments choose.

    Raises:
        ValueError: there is no such preset.
    """
    options = options_of(command)
    others = [word for word in arguments if word not in (*HELP, HELP_ALL)]
    try:
        given = given_values(options, words, others)
    except ValueError:  # help is what mends it
        given = {}
    options = options_of(command, preset_values(command, given))
    everything = HELP_ALL in _before_values(arguments)
    print("\n".join(help_lines(command, words, options, everything=everything, columns=_columns())))


def help_lines(
    command: type, words: str, options: Sequence[Option], *, everything: bool, columns: int
) -> Iterator[str]:
    """Yield the lines of a command's help; of a command with many options only the first ones unless `everything`."""
    guide = GUIDES.get(words, Guide())
    yield from _wrapped(" ".join(_usage(words, options)), columns, after=" " * 7)
    yield ""
    yield from _wrapped(" ".join((command.__doc__ or "").split()), columns)
    short = bool(guide.first) and not everything
    for heading, members_ in _groups(guide, options, everything=everything):
        yield ""
        yield f"{heading}:"
        for option in members_:
            yield from _described(option, columns, short=short and not option.positional)
    if guide.examples:
        yield from ("", "Examples:", *(f"  {example}" for example in guide.examples))
    if short:
        yield from ("", f"mnas {words} {HELP_ALL} shows all {len(options)} options.")


def _before_values(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments that may be options: those before `--`."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _columns() -> int:
    return max(_FEWEST_COLUMNS, min(_MOST_COLUMNS, shutil.get_terminal_size((_MOST_COLUMNS, 40)).columns))


def _usage(words: str, options: Sequence[Option]) -> Iterator[str]:
    yield f"usage: mnas {words}"
    for option in options:
        if option.positional:
            name = f"{option.flag}..." if option.several else option.flag
            yield name if option.default in (REQUIRED, ()) else f"[{name}]"
    for option in options:
        if not option.positional and option.default is REQUIRED:
            yield f"{option.flag} {_kind(option)}"
    yield "[OPTIONS]"


def _groups(guide: Guide, options: Sequence[Option], *, everything: bool) -> Iterator[tuple[str, list[Option]]]:
    """Headings and their options; the first options come in the guide's order, the others in that of the fields."""
    by_flag = {option.flag: option for option in options if not option.positional}
    if arguments := [option for option in options if option.positional]:
        yield "Arguments", arguments
    if not guide.first:
        yield "Options", list(by_flag.values())
        return
    yield "Common options", [by_flag.pop(flag) for flag in guide.first]
    if not everything:
        return
    for heading, flags in guide.groups.items():
        yield heading, [by_flag.pop(flag) for flag in flags]
    for heading in dict.fromkeys(option.group for option in by_flag.values()):
        yield heading or "Other options", [option for option in by_flag.values() if option.group == heading]


def _described(option: Option, columns: int, *, short: bool) -> Iterator[str]:
    """The lines of an option: its flag, and beside it what it is; of a `short` one the first sentence only."""
    width = columns - _FLAGS_WIDTH - 2
    text = _shortened(option.help, _SHORT_LINES * width) if short else option.help
    text = " ".join(part for part in (text.removesuffix(".") + ".", _note(option)) if part)
    flags = f"  {option.flag}" if option.positional else f"  {option.flag} {_kind(option)}".rstrip()
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    if len(flags) > _FLAGS_WIDTH:
        yield flags
        flags = ""
    for line in lines:
        yield f"{flags:<{_FLAGS_WIDTH}}  {line}"
        flags = ""


def _shortened(text: str, characters: int) -> str:
    """The first sentence, without its last clauses where it is longer than `characters`."""
    text = text.partition(". ")[0]
    while len(text) > characters and "; " in text:
        text = text.rpartition("; ")[0]
    return text


def _kind(option: Option) -> str:
    """The values that an option takes, in capitals; words that are taken as they are in small letters."""
    if option.hint is bool:
        return ""
    kinds = [_KINDS[member] for member in members(option.hint) if member in _KINDS]
    choices = "|".join(option.choices)
    if not kinds:
        return choices if len(choices) <= _LONGEST_CHOICES else "NAME"
    return "|".join((*kinds, *option.choices))


def _note(option: Option) -> str:
    """What follows the description in parentheses: the choices where they are too many for `_kind`, and the default."""
    notes = []
    if _kind(option) == "NAME":
        notes.append(f"one of {', '.join(option.choices)}")
    if option.default is REQUIRED:
        notes.append("required")
    elif (text := _shown(option.default)) and option.hint is not bool:
        notes.append(f"default: {text}")
    elif option.default is True:
        notes.append(f"default; --no-{option.flag[2:]} turns it off")
    return f"({'; '.join(notes)})" if notes else ""


def _shown(default: Any) -> str:
    if default is None or default in ("", math.inf, ()):
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)


def _wrapped(text: str, columns: int, after: str = "") -> list[str]:
    return textwrap.wrap(text, columns, subsequent_indent=after, break_on_hyphens=False)
