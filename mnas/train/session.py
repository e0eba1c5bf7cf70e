"""The surroundings of a training: its folder, the processes that share it, its watcher, and requests to stop it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import torch

from mnas.data.augment import seed_of
from mnas.train.failures import failures_explained
from mnas.train.folder import CHECKPOINT_NAME, Explain, claimed
from mnas.train.process import StopNow, StopRequest, TrainingStopped, stop_requests, training_settings
from mnas.train.start import make_accelerator
from mnas.train.step_recipe import StepRecipe
from mnas.train.watch import TrainWatcher, Unwatched

START_SEED, STEP_SEED = 0, 1
"""Purposes of seeds: a seed's first number."""


@dataclass(frozen=True, kw_only=True)
class TrainingSession:
    """The surroundings of a training."""

    folder: Path
    identity: Mapping[str, Any]
    """Values that must be equal when the training is resumed."""
    accelerator: accelerate.Accelerator
    watcher: TrainWatcher
    stop: StopRequest

    @property
    def resumes(self) -> bool:
        """Whether the folder has a checkpoint to continue from."""
        return (self.folder / CHECKPOINT_NAME).exists()

    @contextmanager
    def starting(self, seed: int) -> Iterator[None]:
        """Seed the initial weights, and let a signal end the preparation of the training immediately."""
        try:
            with self.stop.at_once(self.accelerator.num_processes == 1):
                torch.manual_seed(seed_of(START_SEED, seed))
                yield
        except StopNow:
            raise TrainingStopped(self.stop.number, "the start") from None


@contextmanager
def open_session(
    folder: Path,
    recipe: StepRecipe,
    identity: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    batch_size: int,
    resume: bool,
    watcher: TrainWatcher | None,
    compiled: bool = False,
    explain: Explain = lambda *_: "",
) -> Iterator[TrainingSession]:
    """Join the processes of a training, reserve its folder, and set what a training needs of the process.

    Args:
        identity: values that must be equal when the training is resumed.
        facts: further values for `config.json`.
        batch_size: number of images per step, for the error of a lack of memory.
        resume: allow a folder with this training.
        compiled: compile the network.
        explain: says how two trainings differ in a field, as `claimed` takes it.

    Raises:
        TrainingError: memory is exhausted, or a process that reads images was killed.
        ValueError: the folder contains a training and `resume` is False, or another training; another process uses it;
            or the accelerator is missing.
        OSError: the folder cannot be written.
    """
    accelerator = make_accelerator(recipe.device(), recipe.mixed_precision, compiled=compiled)
    claim = claimed(folder, identity, facts, resume, explain) if accelerator.is_main_process else nullcontext()
    settings = training_settings(recipe.threads, accelerator.device, repeatable=False)
    with settings, stop_requests() as stop, claim, failures_explained(folder, batch_size):
        accelerator.wait_for_everyone()
        yield TrainingSession(
            folder=folder, identity=identity, accelerator=accelerator, watcher=watcher or Unwatched(), stop=stop
        )
