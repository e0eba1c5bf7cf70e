"""A detector's training in progress: its loss, its scores and its end; `mnas.detection.loop` starts it."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mnas.data.augment import normalised
from mnas.data.detection.batches import BoxBatches
from mnas.data.detection.record import DetectionPart, count_objects
from mnas.detection.coco import DetectionScores
from mnas.detection.config import DetectionConfig
from mnas.detection.detections import ImageDetections
from mnas.detection.metrics import DetectionMetrics
from mnas.detection.network import NetworkDetector
from mnas.detection.page import write_detector_page
from mnas.detection.result import TrainedDetector
from mnas.detection.score import score_detector
from mnas.detector import DetectorMetadata
from mnas.formats import WEIGHTS_NAME
from mnas.nn.detection.loss import BoxTarget, detection_loss
from mnas.nn.detection.network import DetectorNetwork
from mnas.nn.detection.weights import save_detector
from mnas.train.folder import write_result
from mnas.train.recipe import set_momentum
from mnas.train.session import TrainingSession
from mnas.train.start import check_batch
from mnas.train.steps import TrainingSteps

_SCORE_BATCH = 32


class DetectorTraining(TrainingSteps[DetectorNetwork, tuple[Tensor, Sequence[BoxTarget]], DetectionMetrics]):
    """A detector's training in progress."""

    config: DetectionConfig
    statistics_batch = 32

    def __init__(
        self,
        network: DetectorNetwork,
        batches: BoxBatches,
        config: DetectionConfig,
        session: TrainingSession,
        metadata: DetectorMetadata,
    ) -> None:
        self.batches, self.metadata = batches, metadata
        batch_size = min(config.batch_size, batches.counts["train"])
        check_batch(batch_size, session.accelerator.num_processes, False)
        set_momentum(network.backbone, config.bn_momentum)
        super().__init__(
            network,
            config,
            session,
            DetectionMetrics,
            batch_size=batch_size,
            steps=batches.steps(batch_size),
            images=batches.counts["train"],
            normalisation=(metadata.mean, metadata.std),
            normed=network.backbone,
            check_every=1,  # the loss waits for the device anyway, as it selects boxes
        )
        self.detections: dict[int, ImageDetections] = {}
        """Image id -> detections, of the part that was scored last."""

    def run(self) -> TrainedDetector:
        with self._metrics_files() as files:
            while self.epoch < self.config.epochs:
                self.train_epoch()
                self._score_epoch()
                self._epoch_done(files)
            return self._by_first(self._finished)

    # Steps

    def _batches(self) -> Iterator[tuple[Tensor, Sequence[BoxTarget]]]:
        return self.batches.training(self.epoch, self.batch_size, start=self.step, rank=self.rank, world=self.world)

    def _loss_of(self, batch: tuple[Tensor, Sequence[BoxTarget]], seed: int) -> Tensor:
        images, targets = batch
        logits, offsets = self.model(normalised(images.to(self.device, non_blocking=True), self.mean, self.std))
        on_device = [_to(target, self.device) for target in targets]
        return detection_loss(logits, offsets, on_device, self.network.default_boxes).total

    def _one_pass(self, size: int) -> Iterator[Tensor]:
        source = self.batches.training(self.config.epochs, size)  # a number that no training epoch has
        return (images for images, _ in source)

    # Scores

    def _score_epoch(self) -> None:
        start, loss = time.perf_counter(), self._epoch_loss()
        last = self.epoch + 1 == self.config.epochs
        scores = None
        if last or (self.epoch + 1) % self.config.score_every == 0:
            scores = self._by_first(self._scored_now)
        self.rows.append(
            DetectionMetrics(
                **self._measured(loss, start),
                val_precision=scores.mean_precision if scores else math.nan,
                val_ap50=scores.ap50 if scores else math.nan,
            )
        )
        self._begin(self.epoch + 1)
        self._save()

    def _scored_now(self) -> DetectionScores:
        """Return the scores on the validation images of the network that would be kept at this point."""
        with self._scoring():
            self._set_scored()
            return self._score("val")

    def _finished(self) -> TrainedDetector:
        """Score the network to keep, and write it with the result of the training."""
        with self._scoring():
            self._set_scored()
            scores = self._score("val")
            tested = self._score("test") if count_objects(self.batches.images("test")) else None
            part: DetectionPart = "test" if tested else "val"
            write_detector_page(self.folder, self.rows, self.batches, part, tested or scores, self.detections)
        weights = self.folder / WEIGHTS_NAME
        save_detector(weights, self.scored, replace(self.metadata, mean_precision=scores.mean_precision))
        trained = TrainedDetector(
            **self._totals(),
            weights=weights,
            mean_precision=scores.mean_precision,
            ap50=scores.ap50,
            test_precision=tested.mean_precision if tested else None,
            test_ap50=tested.ap50 if tested else None,
        )
        write_result(self.folder, trained)
        return trained

    def _score(self, part: DetectionPart) -> DetectionScores:
        detect, data = NetworkDetector(self.scored, self.metadata), self.batches.data
        batches = self._until_stopped(self.batches.scoring(part, _SCORE_BATCH))
        images = self.batches.images(part)
        scores, self.detections = score_detector(detect, batches, images, data.classes, data.category_ids)
        return scores

    # Checkpoints

    def _own_state(self) -> dict[str, Any]:
        return {}

    def _load_own(self, state: Mapping[str, Any]) -> None:
        pass


def _to(target: BoxTarget, device: torch.device) -> BoxTarget:
    crowds = None if target.crowds is None else target.crowds.to(device)
    return BoxTarget(target.boxes.to(device), target.labels.to(device), crowds)
