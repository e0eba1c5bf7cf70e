"""The part that all trainings share: steps, stops, checkpoints, and scores that the first process finds for all."""

import itertools
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import asdict
from typing import Any, Generic, TypeVar

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from mnas.data.augment import seed_of
from mnas.metadata import Triple
from mnas.nn.fast import speed_up
from mnas.train.checkpoint import check_progress, load_checkpoint, save_checkpoint
from mnas.train.failures import rename_advice
from mnas.train.folder import CHECKPOINT_NAME
from mnas.train.metrics import EpochRow, MetricsFiles
from mnas.train.process import StopNow, TrainingStopped
from mnas.train.recipe import MovingAverage, optimizer_for, schedule_for
from mnas.train.scoring import DivergedError, TrainingError, estimate_statistics, moments
from mnas.train.session import STEP_SEED, TrainingSession
from mnas.train.start import freeze_statistics
from mnas.train.step_recipe import StepRecipe
from mnas.train.watch import TrainProgress

_AGREE_EVERY = 20  # steps between the points at which several processes agree on whether to stop

Net = TypeVar("Net", bound=nn.Module)
Batch = TypeVar("Batch")
Row = TypeVar("Row", bound=EpochRow)
Item = TypeVar("Item")


class TrainingSteps(ABC, Generic[Net, Batch, Row]):
    """A training in progress; `epoch` and `step` count completed work.

    A subclass provides the batches, their loss, and what its checkpoints contain besides. Its own loop calls
    `train_epoch`, scores, adds a row to `rows`, and calls `_begin` and `_save`.
    """

    statistics_batch = 128
    """Number of images in a batch from which batch-norm statistics are estimated."""

    def __init__(
        self,
        network: Net,
        config: StepRecipe,
        session: TrainingSession,
        kind: type[Row],
        *,
        batch_size: int,
        steps: int,
        images: int,
        normalisation: tuple[Triple, Triple],
        normed: nn.Module,
        check_every: int,
        compiled: bool = False,
    ) -> None:
        """Prepare the network and the optimizer.

        Args:
            kind: dataclass of an epoch's metrics.
            batch_size: number of images per step, of all processes.
            steps: number of steps per epoch.
            images: number of training images.
            normalisation: mean and standard deviation of the images' channels.
            normed: the network, or the part that `batch_norm` of the recipe is about.
            check_every: number of steps between checks of the loss, each of which waits for a GPU.
            compiled: whether the accelerator compiles the network.
        """
        self.config: StepRecipe = config
        self.batch_size, self.steps, self.normed, self.check_every = batch_size, steps, normed, check_every
        self.folder, self.identity = session.folder, session.identity
        self.accelerator, self.watcher, self.stop = session.accelerator, session.watcher, session.stop
        self.device: torch.device = self.accelerator.device
        self.images, (self.mean, self.std) = images, moments(*normalisation, self.device)
        self.main: bool = self.accelerator.is_main_process
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.network: Net = network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.device.type == "cpu" and not compiled:
            speed_up(self.network)
        self.scored: Net = deepcopy(self.network)  # a copy, as Accelerate changes the original
        self.average = MovingAverage(self.network, config.ema_decay) if config.ema_decay and self.main else None
        self.raw_optimizer = optimizer_for(self.network, config, batch_size)
        self.schedule = schedule_for(self.raw_optimizer, config, steps)
        self.model, self.optimizer = self.accelerator.prepare(self.network, self.raw_optimizer)
        self.rate_factor = 1.0  # of the scheduled learning rate
        self.untouched = True  # since the last checkpoint, or since the start without one
        self.kind, self.rows = kind, list[Row]()
        self._begin(0)

    # What trainings differ in

    @abstractmethod
    def _batches(self) -> Iterator[Batch]:
        """Return this process's share of the batches of the epoch from `step` on."""

    @abstractmethod
    def _loss_of(self, batch: Batch, seed: int) -> Tensor:
        """Return the loss of a batch by `model`; random parts are drawn from the step's seed."""

    @abstractmethod
    def _one_pass(self, size: int) -> Iterator[Tensor]:
        """Return batches of training images (size, S, S, 3), augmented as in training, the same at every call."""

    @abstractmethod
    def _own_state(self) -> dict[str, Any]:
        """Return what a checkpoint contains besides the state of all trainings."""

    @abstractmethod
    def _load_own(self, state: Mapping[str, Any]) -> None:
        """Restore `_own_state` from a checkpoint whose other content is restored. Raises ValueError or KeyError."""

    # Steps

    def train_epoch(self) -> None:
        """Train the rest of the epoch, adding its seconds to `spent`. Raises DivergedError and TrainingStopped."""
        self.model.train()
        if self.config.batch_norm == "frozen":
            freeze_statistics(self.normed)
        source = self._batches()
        try:
            while self.step < self.steps:
                self._stop_where_asked()
                start = time.perf_counter()
                try:
                    with self._at_once():
                        batch = next(source)
                except StopNow:
                    self._save()
                    raise TrainingStopped(self.stop.number, self._where()) from None
                self.spent["waiting"] += time.perf_counter() - start
                self._first_update(batch) if self.untouched else self._update(batch)
                self.step += 1
                looks = self.step % self.check_every == 0 or self.step == self.steps
                loss = self._checked_loss() if looks else math.nan
                self.spent["training"] += time.perf_counter() - start
                if self.main:
                    self.watcher.step(self._progress(loss))
        finally:
            if isinstance(source, Generator):
                source.close()

    def _first_update(self, batch: Batch) -> None:
        """Do the first update, which may compile the network for minutes; a signal ends it at the last checkpoint."""
        try:
            with self._at_once():
                self._update(batch)
        except StopNow:
            raise TrainingStopped(self.stop.number, self._where()) from None
        self.untouched = False

    def _update(self, batch: Batch) -> None:
        done = self.epoch * self.steps + self.step
        seed = seed_of(STEP_SEED, self.config.seed, done, self.rank)
        torch.manual_seed(seed)  # for dropout
        self.schedule.step_update(done)
        for group in self.raw_optimizer.param_groups:
            group["lr"] *= self.rate_factor
        self.optimizer.zero_grad()
        loss = self._loss_of(batch, seed)
        self.accelerator.backward(loss)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network, done + 1)
        self.loss_sum += loss.detach()

    def _begin(self, epoch: int) -> None:
        """Begin the next epoch after this number of epochs."""
        self.epoch, self.step = epoch, 0
        self.loss_sum = torch.zeros((), device=self.device)
        self.spent = {"training": 0.0, "waiting": 0.0}  # seconds of this epoch

    def _checked_loss(self) -> float:
        total = self.loss_sum if self.world == 1 else self.accelerator.reduce(self.loss_sum, "mean")
        loss = float(total) / self.step
        if not math.isfinite(loss):
            raise DivergedError(
                f"the training diverged: its loss was not finite by step {self.step} of epoch {self.epoch + 1}"
            )
        return loss

    def _progress(self, loss: float) -> TrainProgress:
        epochs, done = self.config.fixed_epochs, self.epoch * self.steps + self.step
        rate = self.step * self.batch_size / max(self.spent["training"], 1e-9)
        score_s = self.rows[-1].score_s if self.rows else 0.0
        return TrainProgress(
            epoch=self.epoch + 1,
            epochs=epochs,
            step=self.step,
            steps=self.steps,
            loss=loss,
            images_per_s=rate,
            eta_s=(epochs * self.steps - done) * self.batch_size / rate + (epochs - self.epoch) * score_s,
        )

    # Epochs

    @contextmanager
    def _metrics_files(self) -> Iterator[MetricsFiles | None]:
        """Open the files of metrics, on the first process only; a divergence inside becomes an error with a remedy."""
        files = MetricsFiles(self.folder, self.kind, self.rows) if self.main else None
        try:
            yield files
        except DivergedError as error:
            raise TrainingError(f"{error}{self._remedy()}") from None
        finally:
            if files:
                files.close()

    def _epoch_done(self, files: MetricsFiles | None) -> None:
        """Report the last row, and wait for the other processes."""
        if files:
            files.add(self.rows)
            self.watcher.epoch(self.rows[-1])
        self.accelerator.wait_for_everyone()

    def _epoch_loss(self) -> float:
        return float(self.accelerator.reduce(self.loss_sum, "mean")) / self.steps

    def _measured(self, loss: float, start: float) -> dict[str, Any]:
        """Return the metrics of the epoch that all trainings have, of its mean loss and the time its scoring began."""
        return {
            "epoch": self.epoch + 1,
            "steps": (self.epoch + 1) * self.steps,
            "learning_rate": self.raw_optimizer.param_groups[0]["lr"],
            "train_loss": loss,
            "images_per_s": self.steps * self.batch_size / self.spent["training"],
            "waiting": self.spent["waiting"] / self.spent["training"],
            "train_s": self.spent["training"],
            "score_s": time.perf_counter() - start,
        }

    def _totals(self) -> dict[str, Any]:
        """Return the part of a finished training's result that all trainings have."""
        train_s = sum(row.train_s for row in self.rows)
        return {
            "epochs": len(self.rows),
            "seconds": train_s + sum(row.score_s for row in self.rows),
            "images_per_s": self.epoch * self.steps * self.batch_size / train_s,
            "waiting": sum(row.waiting * row.train_s for row in self.rows) / train_s,
        }

    # Scoring

    def _by_first(self, work: Callable[[], Item]) -> Item:
        """Let the first process work, and return its result, or raise its DivergedError, in all of them."""
        results: list[Item | DivergedError | None] = [None]
        if self.main:
            try:
                results = [work()]
            except DivergedError as error:
                results = [error]
        broadcast_object_list(results)  # in place
        if isinstance(results[0], DivergedError):
            raise results[0]
        assert results[0] is not None
        return results[0]

    def _set_scored(self) -> None:
        """Set `scored` to the network to keep: the moving average or the last weights.

        Its batch-norm statistics are estimated where the recipe says so, unless they are frozen.
        """
        network = self.network if self.average is None else self.average.network
        self.scored.load_state_dict(network.state_dict())
        self.scored.eval()
        count = min(self.config.estimate_statistics, self.images)
        if count and self.config.batch_norm != "frozen":
            size = min(self.statistics_batch, count)
            images = itertools.islice(self._one_pass(size), count // size)
            estimate_statistics(self.scored, images, self.mean, self.std)

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

    def _until_stopped(self, batches: Iterable[Item]) -> Iterator[Item]:
        for batch in batches:
            if self.stop.number:
                self._save()
                raise TrainingStopped(self.stop.number, "scoring")
            yield batch

    # Checkpoints

    def _save(self) -> None:
        if not self.main:
            return
        state = {
            "identity": dict(self.identity),
            "epoch": self.epoch,
            "step": self.step,
            **self._weights(),
            "loss_sum": self.loss_sum,
            "spent": self.spent,
            "rows": [asdict(row) for row in self.rows],  # type: ignore[call-overload]
            **self._own_state(),
        }
        save_checkpoint(self.folder / CHECKPOINT_NAME, state)

    def _weights(self) -> dict[str, Any]:
        """Return all tensors that training changes, without a copy."""
        scaler = self.accelerator.scaler
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.network.state_dict(),
            "optimizer": self.raw_optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.network.load_state_dict(state["average"])
        self.raw_optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def load(self) -> None:
        """Restore a checkpoint. Raises ValueError for one that is damaged or belongs to another training."""
        path = self.folder / CHECKPOINT_NAME
        state = load_checkpoint(path, self.identity)
        try:
            self._restore(state)
            check_progress(state, self.config.fixed_epochs, self.steps, self.raw_optimizer)
            self.loss_sum = state["loss_sum"].to(self.device)
            self.epoch, self.step, self.spent = state["epoch"], state["step"], state["spent"]
            self.rows = [self.kind(**row) for row in state["rows"]]
            self._load_own(state)
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

    # Words

    def _where(self) -> str:
        return f"epoch {self.epoch + 1} of {self.config.fixed_epochs}, step {self.step} of {self.steps}"

    def _remedy(self) -> str:
        rate = self.config.learning_rate * self.rate_factor
        return f"; use a lower --learning-rate (now {rate:g}) or more --warmup-epochs{rename_advice(self.folder)}"
