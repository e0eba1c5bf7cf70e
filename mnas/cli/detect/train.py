"""`mnas detect train`: train a detector on one's own boxes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from mnas.cli.console import Steps, make_console
from mnas.cli.signals import closing_takes
from mnas.cli.train import resuming
from mnas.detection.settings import DetectTrainSettings, detect_preset_values
from mnas.train.machine import is_first_process


@dataclass(frozen=True, kw_only=True)
class DetectTrainCommand:
    """Train a detector: SSDLite on any network of blocks. Add --resume to resume a stopped training."""

    settings: Annotated[DetectTrainSettings, Parameter(name="*")]
    """The training."""

    @classmethod
    def defaults(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return option -> default, of the preset that the given options choose.

        Raises:
            ValueError: the preset is unknown.
        """
        return detect_preset_values(given)

    def run(self) -> None:
        """Train, and print the result. Raises ValueError for errors that the user can correct."""
        import torch  # takes seconds to import, and the help does not need it

        from mnas.api.train_watching import watching_training
        from mnas.full_training.detector import run_detector_training
        from mnas.full_training.run import TrainListeners
        from mnas.train.process import STOPPING_S, TrainingStopped

        closing_takes(STOPPING_S + 10)
        with Steps(make_console(quiet=not is_first_process())) as steps:
            listeners = TrainListeners(
                say=steps.say, progress=steps.step, watching=lambda: watching_training(steps.console)
            )
            try:
                run_detector_training(self.settings, listeners)
            except TrainingStopped as stop:
                steps.say(f"stopped at {stop.where}; all progress is saved. To resume: {resuming()}")
                raise
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
