"""What `mnas COMMAND --help` and `--help-all` print."""

import importlib
import shlex
import subprocess
import sys

import pytest

from mnas.cli.guide import GUIDES
from mnas.cli.help import help_lines
from mnas.cli.main import COMMANDS, run
from mnas.cli.options import options_of
from mnas.cli.parsing import parse, preset_values


def command_of(words: str) -> type:
    module, _, name = COMMANDS[words][0].partition(":")
    return getattr(importlib.import_module(module), name)


def lines_of(words: str, *, everything: bool, columns: int = 80) -> list[str]:
    command = command_of(words)
    options = options_of(command, preset_values(command, {}))
    return list(help_lines(command, words, options, everything=everything, columns=columns))


@pytest.mark.parametrize("words", COMMANDS)
def test_help_fits_on_40_lines(words):
    for columns in (80, 100):
        lines = lines_of(words, everything=False, columns=columns)
        assert len(lines) <= 40
        assert max(map(len, lines)) <= columns


@pytest.mark.parametrize("words", COMMANDS)
def test_help_shows_two_examples_that_parse(words):
    lines = lines_of(words, everything=False)
    examples = [line.strip() for line in lines[lines.index("Examples:") + 1 :] if line.startswith("  mnas ")]
    assert len(examples) == 2
    for example in examples:
        program, *arguments = shlex.split(example.partition(" > ")[0])
        assert " ".join((program, *arguments)).startswith(f"mnas {words}")
        parse(command_of(words), words, arguments[len(words.split()) :])


@pytest.mark.parametrize("words", COMMANDS)
def test_help_all_describes_each_option_once(words):
    options = options_of(command_of(words))
    lines = lines_of(words, everything=True)
    flags = [line.split()[0] for line in lines if line.startswith("  ") and line[2] not in " m"]
    assert sorted(flags) == sorted(option.flag for option in options)
    assert [option.flag for option in options if len(option.help) < 5] == []
    short = lines_of(words, everything=False)
    if GUIDES[words].first:
        assert short[-1] == f"mnas {words} --help-all shows all {len(options)} options."
    else:
        assert short == lines


def test_both_are_options_of_every_command(capsys):
    assert run(["search", "--trials", "3", "--help"]) == 0
    short = capsys.readouterr().out
    assert "--latency-budget-s" not in short
    assert run(["search", "--help-all", "--preset", "paper"]) == 0
    long = " ".join(capsys.readouterr().out.split())
    assert "--latency-budget-s" in long
    assert "Number of candidates drawn before the controller learns from them" in long
    assert "(default: 8000)" in long  # the preset's
    assert run(["latency", "fit", "-h"]) == 0
    assert capsys.readouterr().out.startswith("usage: mnas latency fit [OPTIONS]\n")
    assert run(["train", "--preset", "thesis", "--help"]) == 2
    assert "thesis" in capsys.readouterr().err


def test_descriptions_of_commands_begin_with_a_capital_and_end_without_a_full_stop():
    assert [text for _, text in COMMANDS.values() if not text[0].isupper() or text.endswith(".")] == []


def test_the_list_of_commands_imports_none_of_them():
    code = "import mnas.cli.main as m, sys; m.run(['--help']); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"cyclopts", "torch", "optuna", "rich", "numpy"} & set(modules) == set()


@pytest.mark.parametrize("arguments", [["--help-all"], ["devices", "--help-all"]])
def test_a_group_lists_its_commands_for_all_forms_of_help(arguments, capsys):
    assert run(arguments) == 0
    assert "devices calibrate" in capsys.readouterr().out
