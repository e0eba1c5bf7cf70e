"""Full training, from fresh or given weights to `model.safetensors`; it can be resumed at every step.

Tan et al., "MnasNet" (CVPR 2019, arXiv:1807.11626), section 5, with the constants of its published code in the preset
`imagenet`. Departures (docs/explanation/departures.md):
1. An epoch has a whole number of steps; images beyond the last full batch are left out, different ones in each epoch.
2. Batch-norm statistics can be estimated again before scoring, because short trainings need that.
3. With several processes, batch norm sees each process's share of the batch, and the first process's statistics are
   kept.
"""

import itertools
import math
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor

from mnas.architecture import Architecture
from mnas.data.augment import normalised, seed_of
from mnas.data.batches import Batches, Part
from mnas.formats import WEIGHTS_NAME
from mnas.metadata import ModelMetadata
from mnas.nn.fast import speed_up
from mnas.nn.network import Network
from mnas.nn.weights import save_weights
from mnas.train.checkpoint import check_progress, load_checkpoint, save_checkpoint
from mnas.train.config import TrainConfig
from mnas.train.distillation import TaughtBatches
from mnas.train.failures import failures_explained, rename_advice
from mnas.train.folder import CHECKPOINT_NAME, Trained, claimed, read_result, write_result
from mnas.train.identity import facts_of, identity_of
from mnas.train.metrics import EpochMetrics, MetricsFiles
from mnas.train.prefetch import prefetched
from mnas.train.process import StopNow, StopRequest, TrainingStopped, stop_requests, training_settings
from mnas.train.recipe import MovingAverage, apply_overrides, loss_of, mix_of, optimizer_for, schedule_for
from mnas.train.scoring import Scored, TrainingError, estimate_statistics, moments, score
from mnas.train.start import check_batch, make_accelerator, starting_network
from mnas.train.watch import TrainProgress, TrainWatcher, Unwatched
from mnas.training_data import TrainedOn, after_training

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

    Raises:
        TrainingError: the loss, or an output during scoring, is no longer finite; memory is exhausted; or a process
            that reads images was killed.
        TrainingStopped: a signal arrived.
        ValueError: the folder holds a training and `resume` is False, or another training; a checkpoint is damaged;
            images are too small for the strides or fewer than a step needs; or the accelerator is missing.
        OSError: the folder cannot be written.
    """
    arch.check_input_size(batches.input_size)
    accelerator = make_accelerator(config)
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
            training.earlier = earlier
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
) -> "Training":
    """Return the training, at its last checkpoint if there is one; a signal ends the preparation immediately."""
    try:
        with stop.at_once(accelerator.num_processes == 1):
            torch.manual_seed(seed_of(_START, config.seed))
            network = starting_network(initial, arch, batches)
            training = Training(network, batches, config, folder, accelerator, watcher, stop, identity)
            if (folder / CHECKPOINT_NAME).exists():
                training.load()
            return training
    except StopNow:
        raise TrainingStopped(stop.number, "the start") from None


class Training:
    """A training in progress; `epoch` and `step` count completed work."""

    def __init__(
        self,
        network: Network,
        batches: Batches,
        config: TrainConfig,
        folder: Path,
        accelerator: accelerate.Accelerator,
        watcher: TrainWatcher,
        stop: StopRequest,
        identity: dict[str, Any],
    ) -> None:
        self.batches, self.config, self.folder, self.identity = batches, config, folder, identity
        self.accelerator, self.watcher, self.stop = accelerator, watcher, stop
        self.device: torch.device = accelerator.device
        self.main: bool = accelerator.is_main_process
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.batch_size = config.batch_size_for(batches.counts["train"])
        self.steps = batches.steps(self.batch_size)
        check_batch(self.batch_size, self.world, bool(config.mixup or config.cutmix))
        self.network = network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        apply_overrides(self.network, config)
        if self.device.type == "cpu" and not config.compile:
            speed_up(self.network)
        self.scored: Network = deepcopy(self.network)  # a copy, as Accelerate changes the original
        self.average = MovingAverage(self.network, config.ema_decay) if config.ema_decay and self.main else None
        self.raw_optimizer = optimizer_for(self.network, config, self.batch_size)
        self.schedule = schedule_for(self.raw_optimizer, config, self.steps)
        self.model, self.optimizer = accelerator.prepare(self.network, self.raw_optimizer)
        self.loss, self.mix = loss_of(config), mix_of(config, len(batches.classes))
        if isinstance(batches, TaughtBatches):
            self.loss, self.mix = batches.loss, batches.mix(self.batch_size // self.world)
        self.mean, self.std = moments(batches.mean, batches.std, self.device)
        self.earlier: TrainedOn = ()
        self.epoch = self.step = 0
        self.untouched = True
        """Whether nothing has changed since the last checkpoint, or since the start without one."""
        self.loss_sum = torch.zeros((), device=self.device)
        self.spent = {"training": 0.0, "waiting": 0.0}  # seconds of this epoch
        self.rows: list[EpochMetrics] = []
        self.last: Scored | None = None

    # The loop

    def run(self) -> Trained:
        files = MetricsFiles(self.folder, self.rows) if self.main else None
        try:
            while self.epoch < self.config.epochs:
                self.train_epoch()
                self._score_epoch()
                if files:
                    files.add(self.rows)
                    self.watcher.epoch(self.rows[-1])
                self.accelerator.wait_for_everyone()
            return self._finish()
        finally:
            if files:
                files.close()

    def train_epoch(self) -> None:
        """Train the rest of the epoch, adding its seconds to `spent`. Raises TrainingError and TrainingStopped."""
        self.model.train()
        batches = self.batches.training(self.epoch, self.batch_size, start=self.step, rank=self.rank, world=self.world)
        source = self._ahead(batches)
        try:
            while self.step < self.steps:
                self._stop_where_asked()
                start = time.perf_counter()
                try:
                    with self._at_once():
                        images, labels = next(source)
                except StopNow:
                    self._save()
                    raise TrainingStopped(self.stop.number, self._where()) from None
                self.spent["waiting"] += time.perf_counter() - start
                self._first_update(images, labels) if self.untouched else self._update(images, labels)
                self.step += 1
                looks = self.device.type == "cpu" or self.step % _CHECK_EVERY == 0 or self.step == self.steps
                loss = self._checked_loss() if looks else math.nan
                self.spent["training"] += time.perf_counter() - start
                if self.main:
                    self.watcher.step(self._progress(loss))
        finally:
            if isinstance(source, Generator):
                source.close()

    def _first_update(self, images: Tensor, labels: Tensor) -> None:
        """Do the first update, which may compile the network for minutes; a signal ends it at the last checkpoint."""
        try:
            with self._at_once():
                self._update(images, labels)
        except StopNow:
            raise TrainingStopped(self.stop.number, self._where()) from None
        self.untouched = False

    def _update(self, images: Tensor, labels: Tensor) -> None:
        done = self.epoch * self.steps + self.step
        seed = seed_of(_STEP, self.config.seed, done, self.rank)
        torch.manual_seed(seed)  # for dropout
        self.schedule.step_update(done)
        images, targets = (tensor.to(self.device, non_blocking=True) for tensor in (images, labels))
        x = normalised(images, self.mean, self.std)
        if self.mix is not None:
            x, targets = self.mix(x, targets, seed)
        self.optimizer.zero_grad()
        loss = self.loss(self.model(x), targets)
        self.accelerator.backward(loss)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network, done + 1)
        self.loss_sum += loss.detach()

    def _score_epoch(self) -> None:
        start = time.perf_counter()
        loss = float(self.accelerator.reduce(self.loss_sum, "mean")) / self.steps
        if self.main:
            with self._scoring():
                self._prepare_scored()
                scored = self.last = self._score("val")
            self.rows.append(
                EpochMetrics(
                    epoch=self.epoch + 1,
                    steps=(self.epoch + 1) * self.steps,
                    learning_rate=self.raw_optimizer.param_groups[0]["lr"],
                    train_loss=loss,
                    val_loss=scored.loss,
                    val_accuracy=scored.accuracy,
                    images_per_s=self.steps * self.batch_size / self.spent["training"],
                    waiting=self.spent["waiting"] / self.spent["training"],
                    train_s=self.spent["training"],
                    score_s=time.perf_counter() - start,
                )
            )
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum = torch.zeros((), device=self.device)
        self.spent = {"training": 0.0, "waiting": 0.0}
        if self.epoch % self.config.checkpoint_every == 0 or self.epoch == self.config.epochs:
            self._save()

    def _finish(self) -> Trained:
        results: list[Trained | None] = [None]
        if self.main:
            accuracy = self.rows[-1].val_accuracy
            with self._scoring():
                self._prepare_scored()
                scored = self.last or self._score("val")  # None where a resumed training had only scoring left
                tested = self._score("test") if self.batches.counts.get("test") else None  # it may have diverged
            weights = self.folder / WEIGHTS_NAME
            save_weights(weights, self.scored, self._info(accuracy))
            train_s = sum(row.train_s for row in self.rows)
            results = [
                Trained(
                    weights=weights,
                    accuracy=accuracy,
                    test_accuracy=tested.accuracy if tested else None,
                    balanced_accuracy=scored.balanced_accuracy,
                    test_balanced_accuracy=tested.balanced_accuracy if tested else None,
                    majority_share=scored.majority_share,
                    epochs=self.epoch,
                    seconds=train_s + sum(row.score_s for row in self.rows),
                    images_per_s=self.epoch * self.steps * self.batch_size / train_s,
                    waiting=sum(row.waiting * row.train_s for row in self.rows) / train_s,
                )
            ]
            assert results[0] is not None
            write_result(self.folder, results[0])
        broadcast_object_list(results)  # in place
        assert results[0] is not None
        return results[0]

    # Scoring

    def _prepare_scored(self) -> None:
        """Set `scored` to the network to keep: the moving average or the last weights, with statistics estimated."""
        network = self.network if self.average is None else self.average.network
        self.scored.load_state_dict(network.state_dict())
        self.scored.eval()
        count = min(self.config.estimate_statistics, self.batches.counts["train"])
        if count:
            size = min(_STATISTICS_BATCH, count)
            source = self.batches.training(self.config.epochs, size)  # a number that no training epoch has
            images = (images for images, _ in itertools.islice(source, count // size))
            estimate_statistics(self.scored, images, self.mean, self.std)

    def _score(self, part: Part) -> Scored:
        return score(self.scored, self._until_stopped(self.batches.scoring(part, _SCORE_BATCH)), self.mean, self.std)

    @contextmanager
    def _scoring(self) -> Iterator[None]:
        """Let a signal end scoring at any point, as scoring does not change the training."""
        try:
            with self._at_once():
                yield
        except StopNow:
            self._save()
            raise TrainingStopped(self.stop.number, "scoring") from None

    def _at_once(self) -> AbstractContextManager[None]:
        return self.stop.at_once(self.world == 1)  # all processes must stop at the same step

    def _until_stopped(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            if self.stop.number:
                self._save()
                raise TrainingStopped(self.stop.number, "scoring")
            yield batch

    # Checkpoints

    def _save(self) -> None:
        if not self.main:
            return
        scaler = self.accelerator.scaler
        state = {
            "identity": self.identity,
            "epoch": self.epoch,
            "step": self.step,
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.network.state_dict(),
            "optimizer": self.raw_optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "loss_sum": self.loss_sum,
            "spent": self.spent,
            "rows": [asdict(row) for row in self.rows],
        }
        save_checkpoint(self.folder / CHECKPOINT_NAME, state)

    def load(self) -> None:
        """Restore a checkpoint. Raises ValueError for one that is damaged or belongs to another training."""
        path = self.folder / CHECKPOINT_NAME
        state = load_checkpoint(path, self.identity)
        try:
            self.network.load_state_dict(state["network"])
            if self.average is not None:
                self.average.network.load_state_dict(state["average"])
            self.raw_optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler is not None and state["scaler"]:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            check_progress(state, self.config.epochs, self.steps, self.raw_optimizer)
            self.loss_sum = state["loss_sum"].to(self.device)
            self.epoch, self.step, self.spent = state["epoch"], state["step"], state["spent"]
            self.rows = [EpochMetrics(**row) for row in state["rows"]]
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            line = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the checkpoint {path} does not fit its training: {line}; remove it to start from the beginning"
            ) from None

    def _stop_where_asked(self) -> None:
        number = self.stop.number
        if self.world > 1:  # all processes at the same step
            if self.step % _AGREE_EVERY:
                return
            number = int(self.accelerator.gather(torch.tensor([number], device=self.device)).max())
        if number:
            self._save()
            self.accelerator.wait_for_everyone()
            raise TrainingStopped(number, self._where())

    def _where(self) -> str:
        return f"epoch {self.epoch + 1} of {self.config.epochs}, step {self.step} of {self.steps}"

    # Parts of the steps above

    def _ahead(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches in pinned memory, prepared during the step before, so that a GPU need not wait for the copy."""
        if self.device.type != "cuda":
            return batches
        return prefetched(batches, lambda batch: (batch[0].pin_memory(), batch[1].pin_memory()))

    def _checked_loss(self) -> float:
        loss = float(self.loss_sum) / self.step
        if not math.isfinite(loss):
            raise TrainingError(
                f"the training diverged: its loss was not finite by step {self.step} of epoch {self.epoch + 1}; use a "
                f"lower --learning-rate (now {self.config.learning_rate:g}) or more --warmup-epochs"
                f"{rename_advice(self.folder)}"
            )
        return loss

    def _progress(self, loss: float) -> TrainProgress:
        done = self.epoch * self.steps + self.step
        rate = self.step * self.batch_size / max(self.spent["training"], 1e-9)
        score_s = self.rows[-1].score_s if self.rows else 0.0
        remaining = self.config.epochs * self.steps - done
        return TrainProgress(
            epoch=self.epoch + 1,
            epochs=self.config.epochs,
            step=self.step,
            steps=self.steps,
            loss=loss,
            images_per_s=rate,
            eta_s=remaining * self.batch_size / rate + (self.config.epochs - self.epoch) * score_s,
        )

    def _info(self, accuracy: float) -> ModelMetadata:
        return ModelMetadata(
            arch=self.network.arch,
            classes=self.batches.classes,
            mean=self.batches.mean,
            std=self.batches.std,
            input_size=self.batches.input_size,
            accuracy=accuracy,
            crop=self.batches.crop,
            trained_on=after_training(self.batches.training_data, self.earlier),
        )
