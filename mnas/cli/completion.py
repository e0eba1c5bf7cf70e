"""`mnas completion`: print a script that completes commands, options and their values in a shell."""

import dataclasses
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cyclopts import App

from mnas.cli.options import Option, options_of, words_of
from mnas.cli.parsing import application

Shell = Literal["bash", "zsh", "fish"]

_FILES = ("MODEL", "IMAGES", "ARCH", "ARCHS", "--data", "--weights", "--start-from", "--predictor", "--space")
"""Text options that may name a file or folder."""


@dataclass(frozen=True, kw_only=True)
class CompletionCommand:
    """Print a script that completes mnas commands and options in a shell. The examples write it to the right file."""

    shell: Shell = field(kw_only=False)
    """Shell: bash, zsh or fish."""

    def run(self) -> None:
        """Print the script."""
        print(completion_script(self.shell))


def completion_script(shell: Shell) -> str:
    """Return the script for a shell; imports every command, which takes seconds."""
    from mnas.cli.main import COMMANDS

    root = App(name="mnas", help_flags=("--help",), version_flags=("--version",))
    groups = {"": root}
    for words, (place, purpose) in COMMANDS.items():
        module, _, name = place.partition(":")
        command = getattr(importlib.import_module(module), name)
        group, _, word = words.rpartition(" ")
        if group not in groups:
            groups[group] = App(name=group, version_flags=())
            root.command(groups[group])
        app = application(word, _completed(options_of(command), shell), negative_bool=())
        app.help = purpose
        groups[group].command(app)
        groups[words] = app
    for words in COMMANDS:  # a registered application has the flags of its parent
        groups[words].help_flags, groups[words].version_flags = ("--help", "--help-all"), ()
    script = root.generate_completion(prog_name="mnas", shell=shell)
    if shell == "bash":  # where the script offers nothing, readline completes files, including names with spaces
        script = script.replace("complete -F _mnas mnas", "complete -o default -F _mnas mnas")
    return script


def _completed(options: tuple[Option, ...], shell: Shell) -> Iterator[Option]:
    """Yield the options with types by which a script completes files; in bash none, as readline does that better."""
    for option in options:
        if shell == "bash" and option.hint not in (bool, int, float) and not words_of(option.hint):
            yield dataclasses.replace(option, hint=tuple[str, ...] if option.several else str)
        elif option.flag in _FILES:
            yield dataclasses.replace(option, hint=tuple[Path, ...] if option.several else Path)
        else:
            yield option
