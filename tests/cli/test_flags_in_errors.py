"""An error about an option's value names the flag as the user typed it."""

import importlib
import re

import pytest

from mnas.cli.main import COMMANDS
from mnas.cli.options import REQUIRED, options_of
from mnas.cli.parsing import parse

BAD = ("-1", "nan", "nonsense", "3,,")
REQUIRED_WORDS = {"--data": "digits", "--to": "litert", "--path": "table.csv"}


def command_of(words):
    module, _, name = COMMANDS[words][0].partition(":")
    return getattr(importlib.import_module(module), name)


CASES = [
    (words, option)
    for words in COMMANDS
    for option in options_of(command_of(words))
    if option.flag.startswith("--") and option.hint is not bool
]


@pytest.mark.parametrize(("words", "option"), CASES, ids=lambda x: x if isinstance(x, str) else x.flag)
def test_a_refused_value_is_named_with_its_flag(words, option):
    command = command_of(words)
    needed = []
    for other in options_of(command):
        if other.default is REQUIRED and other.flag != option.flag:
            needed += ["mnasnet-a1"] if other.positional else [other.flag, REQUIRED_WORDS.get(other.flag, "x")]
    messages = []
    for value in BAD:
        try:
            parse(command, words, [*needed, f"{option.flag}={value}"])
        except ValueError as error:
            messages.append(str(error))
    assert [message for message in messages if not re.search(rf"{option.flag}(?![\w-])", message)] == []
    if option.hint in (int, float):
        assert len(messages) >= 2  # text that is not a number, and NaN or a list
