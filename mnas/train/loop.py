"""Full training, from fresh or given weights to `model.safetensors`; it can be resumed at every step.

Tan et al., "MnasNet" (CVPR 2019, arXiv:1807.11626), section 5, with the constants of its published code in the preset
`imagenet`. Departures (docs/explanation/departures.md):
1. An epoch has a whole number of steps; images beyond the last full batch are left out, different ones in each epoch.
2. Batch-norm statistics can be estimated again before scoring, because short trainings need that.
3. With several processes, batch norm sees each process's share of the batch, and the first process's statistics are
   kept.
"""

from pathlib import Path

from mnas.architecture import Architecture
from mnas.data.batches import Batches
from mnas.nn.network import Network
from mnas.train.config import TrainConfig
from mnas.train.folder import Trained, read_result
from mnas.train.identity import facts_of, identity_of
from mnas.train.session import open_session
from mnas.train.start import recentre_on, starting_network
from mnas.train.training import Training
from mnas.train.watch import TrainWatcher
from mnas.training_data import TrainedOn


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
    opened = open_session(
        folder,
        config,
        identity_of(arch, batches, config, initial),
        facts_of(arch, batches, config),
        batch_size=config.batch_size_for(batches.counts["train"]),
        resume=resume,
        watcher=watcher,
        compiled=config.compile,
    )
    with opened as session:
        if finished := read_result(folder):
            return finished
        with session.starting(config.seed):
            network = starting_network(initial, arch, batches)
            if config.batch_norm == "recentred" and not session.resumes:
                recentre_on(network, batches, config, session.accelerator.device)
            training = Training(network, batches, config, session, earlier=earlier, title=title or arch.fingerprint)
            if session.resumes:
                training.load()
        return training.run()
