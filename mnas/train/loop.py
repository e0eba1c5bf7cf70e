"""Full training, from fresh or given weights to `model.safetensors`; it can be resumed at every step.

Tan et al., "MnasNet" (CVPR 2019, arXiv:1807.11626), section 5, with the constants of its published code in the preset
`imagenet`. Departures (docs/explanation/departures.md):
1. An epoch has a whole number of steps; images beyond the last full batch are left out, different ones in each epoch.
2. Batch-norm statistics can be estimated again before scoring, because short trainings need that.
3. With several processes, batch norm sees each process's share of the batch, and the first process's statistics are
   kept.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import accelerate
import torch

from mnas.architecture import Architecture
from mnas.data.augment import seed_of
from mnas.data.batches import Batches
from mnas.nn.network import Network
from mnas.train.config import TrainConfig
from mnas.train.failures import failures_explained
from mnas.train.folder import CHECKPOINT_NAME, Trained, claimed, read_result
from mnas.train.identity import facts_of, identity_of
from mnas.train.process import StopNow, StopRequest, TrainingStopped, stop_requests, training_settings
from mnas.train.start import make_accelerator, recentre_on, starting_network
from mnas.train.training import Training
from mnas.train.watch import TrainWatcher, Unwatched
from mnas.training_data import TrainedOn

_CHECK_EVERY = 50  # steps between checks of the loss on a GPU, each of which waits for it
_AGREE_EVERY = 20  # steps between the points at which several processes agree on whether to stop
_SCORE_BATCH = 256
_STATISTICS_BATCH = 128
_START, _STEP = 0, 1  # purposes of seeds: a seed's first number


def train(
    arch: Architecture,
    batches: Batches,
    config: TrainConfig,
    folder: Path,
    *,
    initial: Network | None = None,
    earlier: TrainedOn = (),
    resume: bool = False,
    watcher: TrainWatcher | None = None,
    title: str = "",
) -> Trained:
    """Train `arch` on `batches`, with all output in `folder`; deterministic in the arguments on one process of a CPU.

    SIGINT and SIGTERM end the training after the current step with a checkpoint. Processes that torchrun started share
    every batch; all of them must see the same `folder`.

    Args:
        initial: network to start from, with this architecture and as many classes; None for fresh weights.
        earlier: trainings of `initial`, for the record in the file.
        resume: resume the training in `folder` from its last checkpoint; the result is bit for bit that of an
            uninterrupted one on one process of a CPU with the same threads. A finished training is only read.
        watcher: reports the progress; None for no reports.
        title: heading of the page `report.html`; empty: the fingerprint of `arch`.

    Raises:
        TrainingError: the loss, or an output during scoring, is no longer finite; memory is exhausted; or a process
            that reads images was killed.
        TrainingStopped: a signal arrived.
        ValueError: the folder holds a training and `resume` is False, or another training; a checkpoint is damaged;
            images are too small for the strides or fewer than a step needs; or the accelerator is missing.
        OSError: the folder cannot be written.
    """
    arch.check_input_size(batches.input_size)
    config = config.for_images(batches.counts["train"])
    accelerator = make_accelerator(config.device(), config.mixed_precision, compiled=config.compile)
    identity = identity_of(arch, batches, config, initial)
    claim = claimed(folder, identity, facts_of(arch, batches, config), resume)
    settings = training_settings(config.threads, accelerator.device, repeatable=False)
    with settings, stop_requests() as stop, claim if accelerator.is_main_process else nullcontext():
        accelerator.wait_for_everyone()
        if finished := read_result(folder):
            return finished
        with failures_explained(folder, config.batch_size_for(batches.counts["train"])):
            watch = watcher or Unwatched()
            training = _started(arch, batches, config, folder, accelerator, watch, stop, identity, initial)
            training.earlier, training.title = earlier, title or arch.fingerprint
            return training.run()


def _started(
    arch: Architecture,
    batches: Batches,
    config: TrainConfig,
    folder: Path,
    accelerator: accelerate.Accelerator,
    watcher: TrainWatcher,
    stop: StopRequest,
    identity: dict[str, Any],
    initial: Network | None,
) -> Training:
    """Return the training, at its last checkpoint if there is one; a signal ends the preparation immediately."""
    try:
        with stop.at_once(accelerator.num_processes == 1):
            torch.manual_seed(seed_of(_START, config.seed))
            network = starting_network(initial, arch, batches)
            if config.batch_norm == "recentred" and not (folder / CHECKPOINT_NAME).exists():
                recentre_on(network, batches, config, accelerator.device)
            training = Training(network, batches, config, folder, accelerator, watcher, stop, identity)
            if (folder / CHECKPOINT_NAME).exists():
                training.load()
            return training
    except StopNow:
        raise TrainingStopped(stop.number, "the start") from None
