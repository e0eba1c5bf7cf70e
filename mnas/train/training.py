"""A training in progress: its loss, its guard, its scores and its end; `mnas.train.loop` starts it."""

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mnas.data.augment import normalised, seed_of
from mnas.data.batches import Batches
from mnas.formats import WEIGHTS_NAME
from mnas.nn.network import Network
from mnas.nn.weights import save_weights
from mnas.pages.gallery import Gallery
from mnas.train.config import TrainConfig
from mnas.train.distillation import TaughtBatches
from mnas.train.folder import Trained, write_result
from mnas.train.guard import Guard
from mnas.train.identity import info_of
from mnas.train.metrics import EpochMetrics
from mnas.train.page import ScoredPart
from mnas.train.prefetch import prefetched
from mnas.train.recipe import apply_overrides, loss_of, mix_of
from mnas.train.scoring import DivergedError, Scored, TrainingError, score
from mnas.train.session import START_SEED, TrainingSession
from mnas.train.start import balance, check_batch, losses_at_start
from mnas.train.steps import TrainingSteps
from mnas.training_data import TrainedOn

_CHECK_EVERY = 50  # steps between checks of the loss on a GPU or with several processes, which wait for each other
_SCORE_BATCH = 256
_START_BATCHES = 8


class Training(TrainingSteps[Network, tuple[Tensor, Tensor], EpochMetrics]):
    """A classifier's training in progress."""

    config: TrainConfig

    def __init__(
        self,
        network: Network,
        batches: Batches,
        config: TrainConfig,
        session: TrainingSession,
        *,
        earlier: TrainedOn = (),
        title: str = "",
    ) -> None:
        self.batches, self.earlier, self.title = batches, earlier, title
        batch_size, world = config.batch_size_for(batches.counts["train"]), session.accelerator.num_processes
        check_batch(batch_size, world, bool(config.mixup or config.cutmix))
        apply_overrides(network, config)
        super().__init__(
            network,
            config,
            session,
            EpochMetrics,
            batch_size=batch_size,
            steps=batches.steps(batch_size),
            images=batches.counts["train"],
            normalisation=(batches.mean, batches.std),
            normed=network,
            check_every=1 if session.accelerator.device.type == "cpu" and world == 1 else _CHECK_EVERY,
            compiled=config.compile,
        )
        self.loss = loss_of(config, balance(batches, config, self.device))
        self.mix = mix_of(config, len(batches.classes))
        if isinstance(batches, TaughtBatches):
            self.loss, self.mix = batches.loss, batches.mix(self.batch_size // self.world)
        self.equal_sum = torch.zeros((), device=self.device)
        """Sum of the losses of equal outputs in this epoch, where classes have weights."""
        self.last: Scored | None = None
        self.guard = Guard(config)

    def run(self) -> Trained:
        with self._metrics_files() as files:
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
                self._epoch_done(files)
            if self.config.patience:
                self._restore(self.guard.best())
            return self._by_first(self._finished)

    # Steps

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Return batches, on a GPU in pinned memory and prepared during the step before, so that it need not wait."""
        batches = self.batches.training(self.epoch, self.batch_size, start=self.step, rank=self.rank, world=self.world)
        if self.device.type != "cuda":
            return batches
        return prefetched(batches, lambda batch: (batch[0].pin_memory(), batch[1].pin_memory()))

    def _loss_of(self, batch: tuple[Tensor, Tensor], seed: int) -> Tensor:
        x, targets = self._prepared(*batch, seed)
        logits = self.model(x)
        if self.config.balance == "loss":
            self.equal_sum += self.loss(torch.zeros_like(logits), targets)
        return self.loss(logits, targets)

    def _prepared(self, images: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return normalised and mixed images and their targets, on the device."""
        images, targets = (tensor.to(self.device, non_blocking=True) for tensor in (images, targets))
        x = normalised(images, self.mean, self.std)
        return (x, targets) if self.mix is None else self.mix(x, targets, seed)

    def _begin_epoch(self, epoch: int) -> None:
        self._begin(epoch)
        self.equal_sum = torch.zeros((), device=self.device)

    # The guard

    def _score_start(self) -> None:
        """Let the guard keep the start of a new training, and its accuracy."""
        if self.guard.active and not (self.epoch or self.step or self.guard.restarts):
            scored = self._by_first(self._scored_now)
            own, equal = self._losses_at_start()
            self.guard.begin(*((own / equal, 1.0) if self.config.balance == "loss" else (own, equal)))
            self.guard.add(0, scored, self._weights())

    def _losses_at_start(self) -> tuple[float, float]:
        """Return the losses of the present weights and of equal outputs, the same on all processes."""
        self.scored.load_state_dict(self.network.state_dict())
        source = self.batches.training(self.config.fixed_epochs, self.batch_size // self.world)
        batches = (self._prepared(*batch, 0) for batch in itertools.islice(source, _START_BATCHES))
        torch.manual_seed(seed_of(START_SEED, self.config.seed))  # for dropout
        return losses_at_start(self.scored, self.loss, batches, self.config)

    def _scale(self) -> float:
        """Return the mean loss of equal outputs on the images of the epoch where classes have weights; else 1."""
        if self.config.balance != "loss":
            return 1.0
        return float(self.accelerator.reduce(self.equal_sum, "mean")) / self.steps

    def _go_back(self, error: DivergedError) -> None:
        """Go back to the best epoch, at a lower learning rate. Raises the error, with a remedy, after all retries."""
        if self.guard.restarts == self.config.retries:
            raise TrainingError(f"{error}{self._remedy()}") from None
        self._restore(self.guard.back())
        self.rate_factor = self.guard.factor
        self.rows = self.rows[: self.guard.epoch]
        self._begin_epoch(self.guard.epoch)
        self._save()
        if self.main:
            reached = f"epoch {self.epoch}" if self.epoch else "the start"
            self.watcher.notice(
                f"{error}; going back to {reached}, at a quarter of the learning rate "
                f"(attempt {self.guard.restarts} of {self.config.retries})"
            )

    # Scores

    def _score_epoch(self) -> None:
        start, loss = time.perf_counter(), self._epoch_loss()
        scored = self._by_first(self._scored_now)
        if collapse := self.guard.collapse(loss, scored, scale=self._scale()):
            raise DivergedError(f"{collapse} in epoch {self.epoch + 1}")
        self.last = scored
        self.rows.append(
            EpochMetrics(
                **self._measured(loss, start),
                val_loss=scored.loss,
                val_accuracy=scored.accuracy,
                restarts=self.guard.restarts,
            )
        )
        self._begin_epoch(self.epoch + 1)
        self.guard.add(self.epoch, scored, self._weights())
        ends = self.epoch == self.config.fixed_epochs or self.guard.ends(self.epoch)
        if ends or self.epoch % self.config.checkpoint_every == 0:
            self._save()

    def _scored_now(self) -> Scored:
        """Return the scores on the validation images of the network that would be kept at this point."""
        with self._scoring():
            self._set_scored()
            return self._score_val()

    def _finished(self) -> Trained:
        """Score the network to keep, and write it with the result of the training."""
        accuracy = self.guard.accuracy if self.config.patience else self.rows[-1].val_accuracy
        with self._scoring():
            self._set_scored()
            viewed = ScoredPart(self.batches, _SCORE_BATCH)
            at_last = self._score(viewed.images, viewed.gallery)  # it may have diverged
            tested = at_last if viewed.part == "test" else None
            earlier = None if self.config.patience else self.last  # also None if only scoring was left to resume
            scored = (earlier or self._score_val()) if tested else at_last
            viewed.write(self.folder, self.title, self.epoch)
        weights = self.folder / WEIGHTS_NAME
        save_weights(weights, self.scored, info_of(self.network.arch, self.batches, accuracy, self.earlier))
        trained = Trained(
            **self._totals(),
            weights=weights,
            accuracy=accuracy,
            test_accuracy=tested.accuracy if tested else None,
            balanced_accuracy=scored.balanced_accuracy,
            test_balanced_accuracy=tested.balanced_accuracy if tested else None,
            majority_share=scored.majority_share,
            best_epoch=self.guard.epoch if self.config.patience else None,
            restarts=self.guard.restarts,
        )
        write_result(self.folder, trained)
        return trained

    def _one_pass(self, size: int) -> Iterator[Tensor]:
        source = self.batches.training(self.config.fixed_epochs, size)  # a number that no training epoch has
        return (images for images, _ in source)

    def _score_val(self) -> Scored:
        return self._score(self.batches.scoring("val", _SCORE_BATCH))

    def _score(self, images: Iterable[tuple[Tensor, Tensor]], gallery: Gallery | None = None) -> Scored:
        return score(self.scored, self._until_stopped(images), self.mean, self.std, gallery)

    # Checkpoints

    def _own_state(self) -> dict[str, Any]:
        return {"equal_sum": self.equal_sum, "guard": self.guard.state()}

    def _load_own(self, state: Mapping[str, Any]) -> None:
        self.equal_sum = state.get("equal_sum", torch.tensor(math.inf)).to(self.device)  # missing in earlier versions
        self.guard.load(state.get("guard"), self.epoch)
        self.rate_factor = self.guard.factor
