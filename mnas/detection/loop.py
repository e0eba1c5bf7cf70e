"""Train a detector in a folder of its own."""

import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import accelerate
import torch

from mnas.data.augment import normalised
from mnas.data.detection.batches import BoxBatches
from mnas.data.mirror import to_store
from mnas.detection.config import DetectionConfig
from mnas.detection.difference import difference_in_words
from mnas.detection.result import TrainedDetector, read_detector_result
from mnas.detection.training import DetectorTraining
from mnas.detector import DetectorMetadata
from mnas.nn.detection.network import DetectorNetwork, build_detector, load_backbone
from mnas.nn.digest import weights_digest
from mnas.nn.network import Network
from mnas.nn.recentre import recentre
from mnas.train.scoring import moments
from mnas.train.session import open_session
from mnas.train.watch import TrainWatcher
from mnas.training_data import trained_on_json
from mnas.version import __version__

_RECENTRING_IMAGES, _RECENTRING_BATCH = 256, 16


def train_detector(
    metadata: DetectorMetadata,
    batches: BoxBatches,
    config: DetectionConfig,
    folder: Path,
    *,
    backbone: Network | None = None,
    resume: bool = False,
    watcher: TrainWatcher | None = None,
) -> TrainedDetector:
    """Train a detector on `batches`, with all output in `folder`; deterministic on one process of a CPU.

    SIGINT and SIGTERM end the training after the current step with a checkpoint. Processes that torchrun started share
    every batch; all of them must see the same `folder`.

    Args:
        metadata: the detector, its classes, and the normalisation of its images.
        backbone: network whose weights the backbone begins with, of the detector's `arch`; None for fresh weights.
        resume: resume the training in `folder` from its last checkpoint; the result is bit for bit that of an
            uninterrupted one on one process of a CPU with the same threads. A finished training is only read.
        watcher: reports the progress; None for no reports.

    Raises:
        TrainingError: the loss or an output is no longer finite, or memory is exhausted.
        TrainingStopped: a signal arrived.
        ValueError: the folder holds a training and `resume` is False, or another training; a checkpoint is damaged; or
            the accelerator is missing.
        OSError: the folder cannot be written.
    """
    opened = open_session(
        folder,
        config,
        _identity(metadata, batches, config, backbone),
        _facts(metadata, batches, config),
        batch_size=config.batch_size,
        resume=resume,
        watcher=watcher,
        explain=difference_in_words,
    )
    with opened as session:
        if finished := read_detector_result(folder):
            return finished
        with session.starting(config.seed):
            network = build_detector(metadata.detector, len(metadata.classes))
            if backbone is not None:
                load_backbone(network, backbone)
            if config.batch_norm == "recentred" and not session.resumes:
                _recentre(network, metadata, batches, config, session.accelerator.device)
            training = DetectorTraining(network, batches, config, session, metadata)
            if session.resumes:
                training.load()
        return training.run()


def _recentre(
    network: DetectorNetwork,
    metadata: DetectorMetadata,
    batches: BoxBatches,
    config: DetectionConfig,
    device: torch.device,
) -> None:
    """Recentre the backbone on training images, varied as in training; every process takes the same ones."""
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = moments(metadata.mean, metadata.std, device)
    size = min(_RECENTRING_BATCH, batches.counts["train"])
    source = batches.training(config.epochs, size)  # a number that no training epoch has
    chosen = itertools.islice(source, max(1, _RECENTRING_IMAGES // size))
    recentre(network.backbone, (normalised(images.to(device), mean, std) for images, _ in chosen))


def _identity(
    metadata: DetectorMetadata, batches: BoxBatches, config: DetectionConfig, backbone: Network | None
) -> dict[str, Any]:
    return {
        "detector": metadata.detector.fingerprint,
        "initial weights": "fresh" if backbone is None else weights_digest(backbone),
        "data": batches.data.fingerprint,
        **config.identity(),
        **to_store(batches.mirrored, allowed=True),
    }


def _facts(metadata: DetectorMetadata, batches: BoxBatches, config: DetectionConfig) -> dict[str, Any]:
    """Return facts for the readers of config.json."""
    return {
        "task": "detection",
        "detector": metadata.detector.to_dict(),
        "config": asdict(config),
        "data": {
            "name": batches.data.name,
            "classes": list(metadata.classes),
            "images": {part: len(images) for part, images in batches.data.parts.items()},
        },
        "trained_on": trained_on_json(metadata.trained_on),
        "versions": {"mnas": __version__, "torch": torch.__version__, "accelerate": accelerate.__version__},
    }
