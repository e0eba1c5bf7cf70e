"""Print `mnas COMMAND --help`: the most used options and two examples; `--help-all` prints all options."""

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
"""Columns of an option's flag and type; a longer one has its own line."""
_SHORT_LINES = 2
"""Lines of a description in the short help; longer ones lose their last clauses, which `--help-all` prints."""


def wants_help(arguments: Sequence[str]) -> bool:
    """Return whether a command's arguments ask for its help."""
    return any(word in (*HELP, HELP_ALL) for word in _before_values(arguments))


def print_command_help(command: type, words: str, arguments: Sequence[str]) -> None:
    """Print the help of a command, with the defaults of the preset that the other arguments choose.

    Raises:
        ValueError: the preset is unknown.
    """
    options = options_of(command)
    others = [word for word in arguments if word not in (*HELP, HELP_ALL)]
    try:
        given = given_values(options, words, others)
    except ValueError:  # an invalid value must not prevent the help
        given = {}
    options = options_of(command, preset_values(command, given))
    everything = HELP_ALL in _before_values(arguments)
    print("\n".join(help_lines(command, words, options, everything=everything, columns=_columns())))


def help_lines(
    command: type, words: str, options: Sequence[Option], *, everything: bool, columns: int
) -> Iterator[str]:
    """Yield the lines of a command's help; only the first options for a command with many, unless `everything`."""
    guide = GUIDES.get(words, Guide())
    yield from _wrapped(" ".join(usage_of(words, options)), columns, after=" " * 7)
    yield ""
    yield from _wrapped(" ".join((command.__doc__ or "").split()), columns)
    short = bool(guide.first) and not everything
    for heading, members_ in grouped(guide, options, everything=everything):
        yield ""
        yield f"{heading}:"
        for option in members_:
            yield from _described(option, columns, short=short and not option.positional)
    if guide.examples:
        yield from ("", "Examples:", *(f"  {example}" for example in guide.examples))
    if short:
        yield from ("", f"mnas {words} {HELP_ALL} shows all {len(options)} options.")


def _before_values(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments that may be options: those before `--`."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _columns() -> int:
    return max(_FEWEST_COLUMNS, min(_MOST_COLUMNS, shutil.get_terminal_size((_MOST_COLUMNS, 40)).columns))


def usage_of(words: str, options: Sequence[Option]) -> Iterator[str]:
    """Yield the words of the usage line."""
    yield f"usage: mnas {words}"
    for option in options:
        if option.positional:
            name = f"{option.flag}..." if option.several else option.flag
            yield name if option.default in (REQUIRED, ()) else f"[{name}]"
    for option in options:
        if not option.positional and option.default is REQUIRED:
            yield f"{option.flag} {kind_of(option)}"
    yield "[OPTIONS]"


def grouped(guide: Guide, options: Sequence[Option], *, everything: bool) -> Iterator[tuple[str, list[Option]]]:
    """Yield headings with their options: the first options in the guide's order, the others in that of the fields."""
    by_flag = {option.flag: option for option in options if not option.positional}
    if arguments := [option for option in options if option.positional]:
        yield "Arguments", arguments
    if not guide.first:
        if by_flag:  # a command may have only positional values
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
    """Yield the lines of an option: its flag, with the description beside it; for `short`, its first sentence only."""
    width = columns - _FLAGS_WIDTH - 2
    text = _shortened(option.help, _SHORT_LINES * width) if short else option.help
    text = " ".join(part for part in (text.removesuffix(".") + ".", note_of(option)) if part)
    flags = f"  {option.flag}" if option.positional else f"  {option.flag} {kind_of(option)}".rstrip()
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    if len(flags) > _FLAGS_WIDTH:
        yield flags
        flags = ""
    for line in lines:
        yield f"{flags:<{_FLAGS_WIDTH}}  {line}"
        flags = ""


def _shortened(text: str, characters: int) -> str:
    """Return the first sentence, without its last clauses where it exceeds `characters`."""
    text = text.partition(". ")[0]
    while len(text) > characters and "; " in text:
        text = text.rpartition("; ")[0]
    return text


def kind_of(option: Option) -> str:
    """Return the values that an option takes: types in capitals, literal words in small letters."""
    if option.hint is bool:
        return ""
    kinds = [_KINDS[member] for member in members(option.hint) if member in _KINDS]
    choices = "|".join(option.choices)
    if not kinds:
        return choices if len(choices) <= _LONGEST_CHOICES else "NAME"
    return "|".join((*kinds, *option.choices))


def note_of(option: Option) -> str:
    """Return the parenthesis after the description: the choices if `kind_of` has no room for them, and the default."""
    notes = []
    if kind_of(option) == "NAME":
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
