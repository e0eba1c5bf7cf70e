"""A detector's training in progress: its steps, scoring, checkpoints and end; `mnas.detection.loop` starts it."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from mnas.data.augment import normalised, seed_of
from mnas.data.detection.batches import BoxBatches
from mnas.data.detection.record import BoxedImage, DetectionPart, count_objects
from mnas.detection.coco import DetectionScores
from mnas.detection.config import DetectionConfig
from mnas.detection.detections import ImageDetections
from mnas.detection.metrics import DetectionMetrics
from mnas.detection.network import NetworkDetector
from mnas.detection.page import write_detector_page
from mnas.detection.result import TrainedDetector, write_detector_result
from mnas.detection.score import score_detector
from mnas.detector import DetectorMetadata
from mnas.formats import WEIGHTS_NAME
from mnas.nn.detection.loss import BoxTarget, detection_loss
from mnas.nn.detection.network import DetectorNetwork
from mnas.nn.detection.weights import save_detector
from mnas.nn.fast import speed_up
from mnas.train.checkpoint import check_progress, load_checkpoint, save_checkpoint
from mnas.train.failures import rename_advice
from mnas.train.folder import CHECKPOINT_NAME
from mnas.train.metrics import MetricsFiles
from mnas.train.process import StopNow, StopRequest, TrainingStopped
from mnas.train.recipe import MovingAverage, optimizer_for, schedule_for
from mnas.train.scoring import DivergedError, TrainingError, moments
from mnas.train.start import check_batch, freeze_statistics
from mnas.train.watch import TrainProgress, TrainWatcher

_AGREE_EVERY = 20  # steps between the points at which several processes agree on whether to stop
_SCORE_BATCH = 32
_STEP = 1  # purpose of seeds: a seed's first number, as in `mnas.train.training`


class DetectorTraining:
    """A training in progress; `epoch` and `step` count completed work."""

    def __init__(
        self,
        network: DetectorNetwork,
        batches: BoxBatches,
        config: DetectionConfig,
        folder: Path,
        accelerator: accelerate.Accelerator,
        watcher: TrainWatcher,
        stop: StopRequest,
        identity: dict[str, Any],
        metadata: DetectorMetadata,
    ) -> None:
        self.batches, self.config, self.folder, self.identity = batches, config, folder, identity
        self.accelerator, self.watcher, self.stop, self.metadata = accelerator, watcher, stop, metadata
        self.device: torch.device = accelerator.device
        self.main: bool = accelerator.is_main_process
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.batch_size = min(config.batch_size, batches.counts["train"])
        check_batch(self.batch_size, self.world, False)
        self.steps = batches.steps(self.batch_size)
        self.network = network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.bn_momentum != "arch":
            _set_momentum(self.network.backbone, config.bn_momentum)
        if self.device.type == "cpu":
            speed_up(self.network)
        self.scored: DetectorNetwork = deepcopy(self.network)  # a copy, as Accelerate changes the original
        self.average = MovingAverage(self.network, config.ema_decay) if config.ema_decay and self.main else None
        self.raw_optimizer = optimizer_for(self.network, config, self.batch_size)
        self.schedule = schedule_for(self.raw_optimizer, config, self.steps)
        self.model, self.optimizer = accelerator.prepare(self.network, self.raw_optimizer)
        self.mean, self.std = moments(metadata.mean, metadata.std, self.device)
        self.epoch = self.step = 0
        self.loss_sum = self._zero()
        self.spent = {"training": 0.0, "waiting": 0.0}  # seconds of this epoch
        self.rows: list[DetectionMetrics] = []
        self.detections: dict[int, ImageDetections] = {}
        """Image id -> detections, of the part that was scored last."""

    # The loop

    def run(self) -> TrainedDetector:
        files = MetricsFiles(self.folder, DetectionMetrics, self.rows) if self.main else None
        try:
            while self.epoch < self.config.epochs:
                self.train_epoch()
                self._score_epoch()
                if files:
                    files.add(self.rows)
                    self.watcher.epoch(self.rows[-1])
                self.accelerator.wait_for_everyone()
            return self._finish()
        except DivergedError as error:
            raise TrainingError(
                f"{error}; use a lower --learning-rate (now {self.config.learning_rate:g}) or more --warmup-epochs"
                f"{rename_advice(self.folder)}"
            ) from None
        finally:
            if files:
                files.close()

    def train_epoch(self) -> None:
        """Train the rest of the epoch, adding its seconds to `spent`. Raises DivergedError and TrainingStopped."""
        self.model.train()
        if self.config.batch_norm == "frozen":
            freeze_statistics(self.network.backbone)
        source = self.batches.training(self.epoch, self.batch_size, start=self.step, rank=self.rank, world=self.world)
        while self.step < self.steps:
            self._stop_where_asked()
            start = time.perf_counter()
            try:
                with self._at_once():
                    images, targets = next(source)
            except StopNow:
                self._save()
                raise TrainingStopped(self.stop.number, self._where()) from None
            self.spent["waiting"] += time.perf_counter() - start
            self._update(images, targets)
            self.step += 1
            loss = self._checked_loss()
            self.spent["training"] += time.perf_counter() - start
            if self.main:
                self.watcher.step(self._progress(loss))

    def _update(self, images: Tensor, targets: Sequence[BoxTarget]) -> None:
        done = self.epoch * self.steps + self.step
        torch.manual_seed(seed_of(_STEP, self.config.seed, done, self.rank))
        self.schedule.step_update(done)
        x = normalised(images.to(self.device, non_blocking=True), self.mean, self.std)
        self.optimizer.zero_grad()
        logits, offsets = self.model(x)
        on_device = [_to(target, self.device) for target in targets]
        loss = detection_loss(logits, offsets, on_device, self.network.default_boxes).total
        self.accelerator.backward(loss)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network, done + 1)
        self.loss_sum += loss.detach()

    def _score_epoch(self) -> None:
        start = time.perf_counter()
        loss = float(self.accelerator.reduce(self.loss_sum, "mean")) / self.steps
        last = self.epoch + 1 == self.config.epochs
        scores = None
        if last or (self.epoch + 1) % self.config.score_every == 0:
            scores = self._scored_by_all()
        self.rows.append(
            DetectionMetrics(
                epoch=self.epoch + 1,
                steps=(self.epoch + 1) * self.steps,
                learning_rate=self.raw_optimizer.param_groups[0]["lr"],
                train_loss=loss,
                val_precision=scores.mean_precision if scores else math.nan,
                val_ap50=scores.ap50 if scores else math.nan,
                images_per_s=self.steps * self.batch_size / self.spent["training"],
                waiting=self.spent["waiting"] / self.spent["training"],
                train_s=self.spent["training"],
                score_s=time.perf_counter() - start,
            )
        )
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum = self._zero()
        self.spent = {"training": 0.0, "waiting": 0.0}
        self._save()

    def _finish(self) -> TrainedDetector:
        results: list[TrainedDetector | None] = [None]
        if self.main:
            with self._scoring():
                self._prepare_scored()
                scores = self._score("val")
                tested = self._score("test") if count_objects(self.batches.images("test")) else None
                part: DetectionPart = "test" if tested else "val"
                write_detector_page(self.folder, self.rows, self.batches, part, tested or scores, self.detections)
            weights = self.folder / WEIGHTS_NAME
            save_detector(weights, self.scored, replace(self.metadata, mean_precision=scores.mean_precision))
            train_s = sum(row.train_s for row in self.rows)
            trained = TrainedDetector(
                weights=weights,
                mean_precision=scores.mean_precision,
                ap50=scores.ap50,
                test_precision=tested.mean_precision if tested else None,
                test_ap50=tested.ap50 if tested else None,
                epochs=len(self.rows),
                seconds=train_s + sum(row.score_s for row in self.rows),
                images_per_s=self.epoch * self.steps * self.batch_size / train_s,
                waiting=sum(row.waiting * row.train_s for row in self.rows) / train_s,
            )
            write_detector_result(self.folder, trained)
            results = [trained]
        broadcast_object_list(results)  # in place
        assert results[0] is not None
        return results[0]

    # Scoring

    def _scored_by_all(self) -> DetectionScores:
        """Return the scores on the validation images; the first process scores. Raises DivergedError in all of them."""
        results: list[DetectionScores | DivergedError | None] = [None]
        if self.main:
            with self._scoring():
                try:
                    self._prepare_scored()
                    results = [self._score("val")]
                except DivergedError as error:
                    results = [error]
        broadcast_object_list(results)  # in place
        if isinstance(results[0], DivergedError):
            raise results[0]
        assert results[0] is not None
        return results[0]

    def _prepare_scored(self) -> None:
        """Set `scored` to the network to keep: the moving average or the last weights."""
        network = self.network if self.average is None else self.average.network
        self.scored.load_state_dict(network.state_dict())
        self.scored.eval()

    def _score(self, part: DetectionPart) -> DetectionScores:
        images = self.batches.images(part)
        detect = NetworkDetector(self.scored, self.metadata)
        batches = self._until_stopped(self.batches.scoring(part, _SCORE_BATCH))
        data = self.batches.data
        scores, self.detections = score_detector(detect, batches, images, data.classes, data.category_ids)
        return scores

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

    def _until_stopped(
        self, batches: Iterator[tuple[Sequence[BoxedImage], npt.NDArray[np.uint8]]]
    ) -> Iterator[tuple[Sequence[BoxedImage], npt.NDArray[np.uint8]]]:
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
            self._restore(state)
            check_progress(state, self.config.epochs, self.steps, self.raw_optimizer)
            self.loss_sum = state["loss_sum"].to(self.device)
            self.epoch, self.step, self.spent = state["epoch"], state["step"], state["spent"]
            self.rows = [DetectionMetrics(**row) for row in state["rows"]]
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            line = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the checkpoint {path} does not fit its training: {line}; remove it to start from the beginning"
            ) from None

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.network.load_state_dict(state["average"])
        self.raw_optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])

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

    def _zero(self) -> Tensor:
        return torch.zeros((), device=self.device)

    def _checked_loss(self) -> float:
        total = self.loss_sum if self.world == 1 else self.accelerator.reduce(self.loss_sum, "mean")
        loss = float(total) / self.step
        if not math.isfinite(loss):
            raise DivergedError(
                f"the training diverged: its loss was not finite by step {self.step} of epoch {self.epoch + 1}"
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


def _to(target: BoxTarget, device: torch.device) -> BoxTarget:
    crowds = None if target.crowds is None else target.crowds.to(device)
    return BoxTarget(target.boxes.to(device), target.labels.to(device), crowds)


def _set_momentum(network: nn.Module, momentum: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
