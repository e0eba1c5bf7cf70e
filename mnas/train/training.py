"""A training in progress: its steps, scoring, checkpoints and end; `mnas.train.loop` starts it."""

import itertools
import math
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor

from mnas.data.augment import normalised, seed_of
from mnas.data.batches import Batches
from mnas.formats import WEIGHTS_NAME
from mnas.nn.fast import speed_up
from mnas.nn.network import Network
from mnas.nn.weights import save_weights
from mnas.pages.gallery import Gallery
from mnas.train.checkpoint import check_progress, load_checkpoint, save_checkpoint
from mnas.train.config import TrainConfig
from mnas.train.distillation import TaughtBatches
from mnas.train.failures import rename_advice
from mnas.train.folder import CHECKPOINT_NAME, Trained, write_result
from mnas.train.guard import Guard
from mnas.train.identity import info_of
from mnas.train.metrics import EpochMetrics, MetricsFiles
from mnas.train.page import ScoredPart
from mnas.train.prefetch import prefetched
from mnas.train.process import StopNow, StopRequest, TrainingStopped
from mnas.train.recipe import MovingAverage, apply_overrides, loss_of, mix_of, optimizer_for, schedule_for
from mnas.train.result import trained_of
from mnas.train.scoring import DivergedError, Scored, TrainingError, estimate_statistics, moments, score
from mnas.train.start import balance, check_batch, freeze_statistics, losses_at_start
from mnas.train.watch import TrainProgress, TrainWatcher
from mnas.training_data import TrainedOn

_CHECK_EVERY = 50  # steps between checks of the loss on a GPU, each of which waits for it
_AGREE_EVERY = 20  # steps between the points at which several processes agree on whether to stop
_SCORE_BATCH = 256
_STATISTICS_BATCH = 128
_START_BATCHES = 8
_START, _STEP = 0, 1  # purposes of seeds: a seed's first number


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
        self.loss = loss_of(config, balance(batches, config, self.device))
        self.mix = mix_of(config, len(batches.classes))
        if isinstance(batches, TaughtBatches):
            self.loss, self.mix = batches.loss, batches.mix(self.batch_size // self.world)
        self.mean, self.std = moments(batches.mean, batches.std, self.device)
        self.earlier: TrainedOn = ()
        self.title = ""
        self.epoch = self.step = 0
        self.untouched = True
        """Whether nothing has changed since the last checkpoint, or since the start without one."""
        self._alone = self.device.type == "cpu" and self.world == 1
        self.loss_sum, self.equal_sum = self._zero(), self._zero()
        """Sum of the losses of this epoch, and of those of equal outputs where classes have weights."""
        self.spent = {"training": 0.0, "waiting": 0.0}  # seconds of this epoch
        self.rows: list[EpochMetrics] = []
        self.last: Scored | None = None
        self.guard = Guard(config)

    # The loop

    def run(self) -> Trained:
        files = MetricsFiles(self.folder, EpochMetrics, self.rows) if self.main else None
        try:
            self._score_start()
            while self.epoch < self.config.fixed_epochs and not self.guard.ends(self.epoch):
                try:
                    self.train_epoch()
                    self._score_epoch()
                except DivergedError as error:
                    self._go_back(error)
                    if files:
                        files.restart(self.rows)
                    continue
                if files:
                    files.add(self.rows)
                    self.watcher.epoch(self.rows[-1])
                self.accelerator.wait_for_everyone()
            return self._finish()
        except DivergedError as error:  # at the start or on the test images
            raise TrainingError(f"{error}{self._remedy()}") from None
        finally:
            if files:
                files.close()

    def train_epoch(self) -> None:
        """Train the rest of the epoch, adding its seconds to `spent`. Raises TrainingError and TrainingStopped."""
        self.model.train()
        if self.config.batch_norm == "frozen":
            freeze_statistics(self.network)
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
                looks = self._alone or self.step % _CHECK_EVERY == 0 or self.step == self.steps
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
        for group in self.raw_optimizer.param_groups:
            group["lr"] *= self.guard.factor
        x, targets = self._prepared(images, labels, seed)
        self.optimizer.zero_grad()
        logits = self.model(x)
        loss = self.loss(logits, targets)
        if self.config.balance == "loss":
            self.equal_sum += self.loss(torch.zeros_like(logits), targets)
        self.accelerator.backward(loss)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network, done + 1)
        self.loss_sum += loss.detach()

    def _score_start(self) -> None:
        """Let the guard keep the start of a new training, and its accuracy."""
        if self.guard.active and not (self.epoch or self.step or self.guard.restarts):
            scored = self._scored_by_all()
            own, equal = self._losses_at_start()
            self.guard.begin(*((own / equal, 1.0) if self.config.balance == "loss" else (own, equal)))
            self.guard.add(0, scored, self._weights())

    def _losses_at_start(self) -> tuple[float, float]:
        """Return the losses of the present weights and of equal outputs, the same on all processes."""
        self.scored.load_state_dict(self.network.state_dict())
        source = self.batches.training(self.config.fixed_epochs, self.batch_size // self.world)
        batches = (self._prepared(*batch, 0) for batch in itertools.islice(source, _START_BATCHES))
        torch.manual_seed(seed_of(_START, self.config.seed))  # for dropout
        return losses_at_start(self.scored, self.loss, batches, self.config)

    def _prepared(self, images: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return normalised and mixed images and their targets, on the device."""
        images, targets = (tensor.to(self.device, non_blocking=True) for tensor in (images, targets))
        x = normalised(images, self.mean, self.std)
        return (x, targets) if self.mix is None else self.mix(x, targets, seed)

    def _scored_by_all(self) -> Scored:
        """Return the scores on the validation images; the first process scores. Raises DivergedError in all of them."""
        results: list[Scored | DivergedError | None] = [None]
        if self.main:
            with self._scoring():
                try:
                    self._prepare_scored()
                    results = [self._score_val()]
                except DivergedError as error:
                    results = [error]
        broadcast_object_list(results)  # in place
        if isinstance(results[0], DivergedError):
            raise results[0]
        assert results[0] is not None
        return results[0]

    def _score_epoch(self) -> None:
        start = time.perf_counter()
        loss = float(self.accelerator.reduce(self.loss_sum, "mean")) / self.steps
        scored = self._scored_by_all()
        if collapse := self.guard.collapse(loss, scored, scale=self._scale()):
            raise DivergedError(f"{collapse} in epoch {self.epoch + 1}")
        self.last = scored
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
                restarts=self.guard.restarts,
            )
        )
        self._begin(self.epoch + 1)
        self.guard.add(self.epoch, scored, self._weights())
        ends = self.epoch == self.config.fixed_epochs or self.guard.ends(self.epoch)
        if ends or self.epoch % self.config.checkpoint_every == 0:
            self._save()

    def _scale(self) -> float:
        """Return the mean loss of equal outputs on the images of the epoch where classes have weights; else 1."""
        if self.config.balance != "loss":
            return 1.0
        return float(self.accelerator.reduce(self.equal_sum, "mean")) / self.steps

    def _begin(self, epoch: int) -> None:
        """Begin the next epoch after this number of epochs."""
        self.epoch, self.step = epoch, 0
        self.loss_sum, self.equal_sum = self._zero(), self._zero()
        self.spent = {"training": 0.0, "waiting": 0.0}

    def _zero(self) -> Tensor:
        return torch.zeros((), device=self.device)

    def _go_back(self, error: DivergedError) -> None:
        """Go back to the best epoch, at a lower learning rate. Raises the error, with a remedy, after all retries."""
        if self.guard.restarts == self.config.retries:
            raise TrainingError(f"{error}{self._remedy()}") from None
        self._restore(self.guard.back())
        self.rows = self.rows[: self.guard.epoch]
        self._begin(self.guard.epoch)
        self._save()
        if self.main:
            reached = f"epoch {self.epoch}" if self.epoch else "the start"
            self.watcher.notice(
                f"{error}; going back to {reached}, at a quarter of the learning rate "
                f"(attempt {self.guard.restarts} of {self.config.retries})"
            )

    def _finish(self) -> Trained:
        results: list[Trained | None] = [None]
        if self.config.patience:
            self._restore(self.guard.best())
        if self.main:
            accuracy = self.guard.accuracy if self.config.patience else self.rows[-1].val_accuracy
            with self._scoring():
                self._prepare_scored()
                viewed = ScoredPart(self.batches, _SCORE_BATCH)
                at_last = self._score(viewed.images, viewed.gallery)  # it may have diverged
                tested = at_last if viewed.part == "test" else None
                earlier = None if self.config.patience else self.last  # also None if only scoring was left to resume
                scored = (earlier or self._score_val()) if tested else at_last
                viewed.write(self.folder, self.title, self.epoch)
            weights = self.folder / WEIGHTS_NAME
            save_weights(weights, self.scored, info_of(self.network.arch, self.batches, accuracy, self.earlier))
            trained = trained_of(
                weights, self.rows, self.epoch * self.steps * self.batch_size, accuracy=accuracy, scored=scored,
                tested=tested, best_epoch=self.guard.epoch if self.config.patience else None,
                restarts=self.guard.restarts,
            )  # fmt: skip
            write_result(self.folder, trained)
            results = [trained]
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
            source = self.batches.training(self.config.fixed_epochs, size)  # a number that no training epoch has
            images = (images for images, _ in itertools.islice(source, count // size))
            estimate_statistics(self.scored, images, self.mean, self.std)

    def _score_val(self) -> Scored:
        return self._score(self.batches.scoring("val", _SCORE_BATCH))

    def _score(self, images: Iterable[tuple[Tensor, Tensor]], gallery: Gallery | None = None) -> Scored:
        return score(self.scored, self._until_stopped(images), self.mean, self.std, gallery)

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
        state = {
            "identity": self.identity,
            "epoch": self.epoch,
            "step": self.step,
            **self._weights(),
            "loss_sum": self.loss_sum,
            "equal_sum": self.equal_sum,
            "spent": self.spent,
            "rows": [asdict(row) for row in self.rows],
            "guard": self.guard.state(),
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
            equal_sum = state.get("equal_sum", torch.tensor(math.inf))  # missing in earlier versions
            self.equal_sum = equal_sum.to(self.device)
            self.epoch, self.step, self.spent = state["epoch"], state["step"], state["spent"]
            self.rows = [EpochMetrics(**row) for row in state["rows"]]
            self.guard.load(state.get("guard"), self.epoch)
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
        return f"epoch {self.epoch + 1} of {self.config.fixed_epochs}, step {self.step} of {self.steps}"

    # Parts of the steps above

    def _ahead(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches in pinned memory, prepared during the step before, so that a GPU need not wait for the copy."""
        if self.device.type != "cuda":
            return batches
        return prefetched(batches, lambda batch: (batch[0].pin_memory(), batch[1].pin_memory()))

    def _checked_loss(self) -> float:
        total = self.loss_sum if self.world == 1 else self.accelerator.reduce(self.loss_sum, "mean")
        loss = float(total) / self.step
        if not math.isfinite(loss):
            raise DivergedError(
                f"the training diverged: its loss was not finite by step {self.step} of epoch {self.epoch + 1}"
            )
        return loss

    def _remedy(self) -> str:
        rate = self.config.learning_rate * self.guard.factor
        return f"; use a lower --learning-rate (now {rate:g}) or more --warmup-epochs{rename_advice(self.folder)}"

    def _progress(self, loss: float) -> TrainProgress:
        done = self.epoch * self.steps + self.step
        rate = self.step * self.batch_size / max(self.spent["training"], 1e-9)
        score_s = self.rows[-1].score_s if self.rows else 0.0
        remaining = self.config.fixed_epochs * self.steps - done
        return TrainProgress(
            epoch=self.epoch + 1,
            epochs=self.config.fixed_epochs,
            step=self.step,
            steps=self.steps,
            loss=loss,
            images_per_s=rate,
            eta_s=remaining * self.batch_size / rate + (self.config.fixed_epochs - self.epoch) * score_s,
        )
