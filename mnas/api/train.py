"""`mnas.train` and `mnas.train_best`: train networks fully, from Python."""

import inspect
import signal
from pathlib import Path
from typing import Any

from mnas.api.keywords import names_keywords
from mnas.api.lists import joined
from mnas.api.saying import SAY, Say, silence
from mnas.api.train_watching import ShownTraining, training_shown_by
from mnas.full_training.best import train_best as run_train_best
from mnas.full_training.run import TrainListeners, planned_trainings, run_training
from mnas.settings import signature_of
from mnas.shortlist.table import Row
from mnas.study import RunError
from mnas.train.folder import Trained
from mnas.train.process import TrainingStopped
from mnas.train.settings import TrainSettings, train_settings


@names_keywords
def train(arch: str | Path, *, watcher: ShownTraining = "auto", say: Say = silence, **options: Any) -> Trained:
    """Train one architecture fully, and save its weights to a separate folder below `out`.

    The `preset` sets the training recipe; each of its values is also an option. With `resume=True`, the same call
    resumes an interrupted training or returns the result of a finished one.

    Args:
        arch: named network (mnasnet-a1, mnasnet-a1@0.5, mnasnet-small/s8), trial (runs/NAME#17), .json file or block
            strings.
        watcher: display of the progress: auto (a bar in a notebook, else nothing), bar, none, or a `TrainWatcher`.
        say: function that receives lines of text about the images and the training, such as `print`.
        options: options of `mnas train --help-all`, with underscores: `data`, `epochs`, `input_size`, `weights`, ...

    Returns:
        The finished training: its weights file, and accuracies on validation and test images.

    Raises:
        ValueError: an option is unknown or out of range, the images cannot be used, or the folder contains another
            training.
        TrainingError: the loss is no longer finite, or the machine failed (out of memory, a killed process).
        KeyboardInterrupt: the training was interrupted; its checkpoint is saved.

    Examples:
        >>> trained = mnas.train(
        ...     "mnasnet-small@0.25/s8", data="digits", epochs=1, fewest_steps=0, max_images_per_class=20, out="trained"
        ... )
        >>> trained.weights.name
        'model.safetensors'
        >>> 0 <= trained.accuracy <= 1
        True
    """
    settings = train_settings({"arch": str(arch), **joined(options, "input_size", "width_multiplier")})
    if settings.top:
        raise ValueError(
            f"mnas.train trains one network, but got top={settings.top}; use mnas.train_best to train the best of a run"
        )
    trainings = planned_trainings(settings)
    if len(trainings) > 1:
        raise ValueError(
            f"mnas.train trains one network, but got {len(trainings)} sizes or widths; call it once for each"
        )
    listeners = TrainListeners(say=say, progress=silence, watching=lambda: training_shown_by(watcher))
    try:
        return run_training(settings, trainings[0], listeners)
    except TrainingStopped as stop:
        if stop.code != 128 + signal.SIGINT:
            raise
        raise KeyboardInterrupt(
            f"stopped at {stop.where}; the same call with resume=True resumes the training"
        ) from None


@names_keywords
def train_best(run: str | Path, *, top: int, say: Say = silence, **options: Any) -> list[Row]:
    """Train the best candidates of a search fully, in the run's folder, each in a separate process.

    The same call resumes interrupted trainings, and trains candidates that have become one of the best since. A script
    needs the usual `if __name__ == "__main__":`.

    Args:
        run: folder of the search.
        top: number of trials to train: the best by reward, spread along the Pareto front.
        say: function that receives lines of text about the images and the trainings, such as `print`.
        options: options of `mnas train --help-all` that apply to a run: `epochs`, `workers`, `preset`, ...

    Returns:
        All fully trained trials of the run, fastest first.

    Raises:
        ValueError: an option is unknown or out of range, the folder contains no run, the images have changed since the
            search, or a training has failed.

    Examples:
        >>> rows = mnas.train_best("runs/digits", top=1, epochs=1, fewest_steps=0)
        >>> len(rows)
        1
        >>> 0 <= rows[0].accuracy <= 1
        True
    """
    settings = train_settings({"arch": str(run), "top": top, **options})
    outcome = run_train_best(settings, say=say, progress=silence)
    if outcome.failed:
        raise RunError(outcome.failures)
    return outcome.rows


_WATCHER = inspect.Parameter("watcher", inspect.Parameter.KEYWORD_ONLY, default="auto", annotation=ShownTraining)
train.__signature__ = signature_of(TrainSettings, returns=Trained, more=(_WATCHER, SAY))  # type: ignore[attr-defined]
train_best.__signature__ = signature_of(TrainSettings, returns=list[Row], more=(SAY,))  # type: ignore[attr-defined]
