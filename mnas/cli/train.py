"""`mnas train`: train a network, or the best trials of a run, in full."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from mnas.cli.console import Steps, make_console
from mnas.cli.signals import closing_takes
from mnas.train.machine import is_first_process
from mnas.train.settings import TrainSettings, preset_values


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train a network in full. With --top, train the best trials of a search instead. Add --resume to resume a stopped
    training."""

    settings: Annotated[TrainSettings, Parameter(name="*")]
    """The training."""

    @classmethod
    def defaults(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return option -> default, of the preset that the given options choose.

        Raises:
            ValueError: the preset is unknown.
        """
        return preset_values(given)

    def run(self) -> None:
        """Train, and print the result. Raises ValueError for errors that the user can correct."""
        from mnas.train.process import STOPPING_S  # torch takes seconds to import, and the help does not need it

        closing_takes(STOPPING_S + 10)  # parallel trainings need this time to stop
        settings = self.settings
        if (Path(settings.arch) / "study.db").is_file():
            self._train_best()
            return
        if settings.top:
            raise ValueError(
                f"--top needs the folder of a run, but got {settings.arch!r}; list the runs with mnas runs"
            )
        self._train(make_console(quiet=not is_first_process()))

    def _train(self, console: Console) -> None:
        import torch

        from mnas.api.train_watching import watching_training
        from mnas.full_training.run import TrainListeners, run_trainings
        from mnas.train.process import TrainingStopped

        with Steps(console) as steps:
            listeners = TrainListeners(
                say=steps.say, progress=steps.step, watching=lambda: watching_training(steps.console)
            )
            try:
                run_trainings(self.settings, listeners)
            except TrainingStopped as stop:
                steps.say(f"stopped at {stop.where}; all progress is saved. To resume: {resuming()}")
                raise
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def _train_best(self) -> None:
        from mnas.cli.shortlist import print_best
        from mnas.full_training.best import train_best
        from mnas.study import RunError
        from mnas.train.process import TrainingStopped

        console = make_console()
        with Steps(console) as steps:
            try:
                outcome = train_best(self.settings, say=steps.say, progress=steps.step)
            except (KeyboardInterrupt, TrainingStopped):
                steps.say(f"stopped; all progress is saved. To resume: {shlex.join(['mnas', *sys.argv[1:]])}")
                raise
        if outcome.rows:
            print_best(console, Path(self.settings.arch), outcome)
        if outcome.failed:
            raise RunError(outcome.failures)


def resuming() -> str:
    """Return the command that resumes this process's training."""
    arguments = sys.argv[1:] if "--resume" in sys.argv else [*sys.argv[1:], "--resume"]
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return shlex.join(["mnas", *arguments])
    if int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1:  # only the user knows which of torchrun's options matter
        return f"the same torchrun command on every machine, ending in: -m mnas.cli.main {shlex.join(arguments)}"
    launcher = ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"], "-m", "mnas.cli.main"]
    return shlex.join([*launcher, *arguments])
