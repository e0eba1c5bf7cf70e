"""The scripts of `mnas completion`; the one for bash runs in a real bash."""

import shutil
import subprocess
import warnings

import pytest

from mnas.cli.completion import completion_script
from mnas.cli.main import COMMANDS, run

COMPLETE = """
source "$1"
COMP_WORDS=("${@:2}")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_mnas
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "mnas"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # cyclopts warns about commands that it leaves out
        path.write_text(completion_script("bash"))
    return path


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mnas se", ["search"]),
        ("mnas devices ", ["list", "check", "calibrate"]),
        ("mnas latency f", ["fit"]),
        ("mnas latency fit --sa", ["--samples"]),
        ("mnas train mnasnet-a1 --sche", ["--schedule"]),
        ("mnas train mnasnet-a1 --schedule ", ["step", "cosine"]),
        ("mnas search --data search --reward ha", ["hard"]),
        ("mnas search --workers ", ["auto"]),
        ("mnas export model --hel", ["--help", "--help-all"]),
        ("mnas completion ", ["bash", "zsh", "fish"]),
        ("mnas eval x --outputs s", ["softmax", "sigmoid"]),
        ("mnas search --data ", []),  # bash itself completes files
    ],
)
def test_bash_completes(script, line, offered):
    command = ["bash", "--norc", "-c", COMPLETE, "bash", str(script), *line.split(" ")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.split() == offered


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_commands_and_files(script):
    done = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE + "complete -p mnas", "bash", str(script), "mnas", ""],
        capture_output=True,
        text=True,
        check=True,
    )
    *commands, registered = done.stdout.splitlines()
    assert commands == list(dict.fromkeys(words.split()[0] for words in COMMANDS))
    assert registered == "complete -o default -F _mnas mnas"


@pytest.mark.parametrize(("shell", "line"), [("zsh", "#compdef mnas"), ("fish", "complete -c mnas")])
def test_other_shells(shell, line, capsys, tmp_path):
    assert run(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert line in printed
    assert "--samples" in printed or "-l samples" in printed
    if shutil.which(shell):
        (tmp_path / "script").write_text(printed)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_another_shell_is_rejected(capsys):
    assert run(["completion", "tcsh"]) == 2
    assert "SHELL must be one of bash, zsh, fish, but got 'tcsh'" in capsys.readouterr().err
