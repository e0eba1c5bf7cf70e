"""The command that the words of a command line select."""

import pytest

from mnas.cli import main, signals
from mnas.cli.main import COMMANDS, run

TWO_WORDS = ("mnas.cli.space:SpaceCommand", "a command of two words")


def test_two_words_come_before_one_and_one_still_works(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "show space", TWO_WORDS)
    assert run(["show", "space"]) == 0  # SpaceCommand, which needs no argument
    assert "choices" in capsys.readouterr().out
    assert run(["show", "mnasnet-a1"]) == 0
    assert "params" in capsys.readouterr().out.lower()


def test_help_aligns_and_names_both_words(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "show space", TWO_WORDS)
    assert run(["--help"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    purposes = [purpose for _, purpose in COMMANDS.values()]
    assert len({line.index(purpose) for line, purpose in zip(lines, purposes, strict=True)}) == 1
    assert run(["show", "space", "--nonsense"]) == 2
    assert "(mnas show space --help)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["maps"], "mnas: command must be one of maps draw, maps read, but got 'maps'"),
        (["maps", "fold"], "mnas: command must be one of maps draw, maps read, but got 'maps fold'"),
        (
            ["maps", "raed"],
            "mnas: command must be one of maps draw, maps read, but got 'maps raed'; did you mean maps read?",
        ),
    ],
)
def test_a_group_without_its_second_word_lists_them(monkeypatch, capsys, arguments, line):
    monkeypatch.setitem(COMMANDS, "maps draw", TWO_WORDS)
    monkeypatch.setitem(COMMANDS, "maps read", TWO_WORDS)
    assert run(arguments) == 2
    assert capsys.readouterr().err.strip() == line


def test_help_of_a_group_lists_its_commands_alone(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "maps draw", TWO_WORDS)
    assert run(["maps", "--help"]) == 0
    assert [x for x in capsys.readouterr().out.splitlines() if x[:2] == "  "] == ["  maps draw  a command of two words"]
    assert run(["show", "--help"]) == 0
    assert "usage: mnas show" in capsys.readouterr().out


def test_an_unknown_command_lists_all(capsys):
    assert run(["serach"]) == 2
    assert f"must be one of {', '.join(COMMANDS)}, but got 'serach'; did you mean search?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["predict"],
            "mnas: MODEL is required. Model file (.safetensors, .tflite, .onnx, .pte), folder of a training",
        ),
        (["eval", "x"], "mnas: --data is required. Data set: digits, cifar10, fashion-mnist, imagenet, or a folder"),
        (
            ["train", "x", "--epochs", "some"],
            "mnas: --epochs must be an integer or auto, but got 'some' (mnas train --help)",
        ),
        (["eval", "x", "--data", "y", "--crop", "some"], "mnas: --crop must be a number or auto, but got 'some' (mnas"),
        (["export", "x", "--to", "y", "--speed-s", "some"], "mnas: --speed-s must be a number, but got 'some' (mnas"),
    ],
)
def test_errors_name_the_values_that_an_option_accepts(capsys, arguments, line):
    assert run(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(line)
    assert "STR" not in printed
    assert len(printed.splitlines()) == 1


def test_a_process_that_torchrun_ends_after_the_error_of_the_first_stays_silent(monkeypatch, capsys):
    def ended(seconds: float) -> None:
        raise signals.Asked(15)

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(main.time, "sleep", ended)
    assert run(["show", "mnasnet-a9"]) == 143
    assert capsys.readouterr() == ("", "")
