"""The identity of a training: values that must be equal when it is resumed, and facts for its readers."""

from dataclasses import asdict
from typing import Any

import accelerate
import torch

from mnas.architecture import Architecture
from mnas.data.batches import Batches
from mnas.data.mirror import to_store
from mnas.metadata import ModelMetadata
from mnas.nn.digest import weights_digest
from mnas.nn.network import Network
from mnas.train.config import TrainConfig
from mnas.train.distillation import TaughtBatches
from mnas.training_data import TrainedOn, after_training, trained_on_json
from mnas.version import __version__


def identity_of(arch: Architecture, batches: Batches, config: TrainConfig, initial: Network | None) -> dict[str, Any]:
    return {
        "arch": arch.fingerprint,
        "initial weights": "fresh" if initial is None else weights_digest(initial),
        "data": batches.fingerprint,
        "input_size": batches.input_size,
        **config.identity(),
        **to_store(batches.mirrored, batches.may_be_mirrored),
        **(batches.identity() if isinstance(batches, TaughtBatches) else {}),
    }


def facts_of(arch: Architecture, batches: Batches, config: TrainConfig) -> dict[str, Any]:
    """Return facts for the readers of config.json."""
    return {
        "arch": arch.to_dict(),
        "config": asdict(config),
        "data": {"name": batches.name, "classes": len(batches.classes), "images": dict(batches.counts)},
        "trained_on": trained_on_json(after_training(batches.training_data, ())),
        "versions": {"mnas": __version__, "torch": torch.__version__, "accelerate": accelerate.__version__},
    }


def info_of(arch: Architecture, batches: Batches, accuracy: float, earlier: TrainedOn) -> ModelMetadata:
    """Return the metadata of a model trained on these images, after `earlier` trainings."""
    return ModelMetadata(
        arch=arch,
        classes=batches.classes,
        mean=batches.mean,
        std=batches.std,
        input_size=batches.input_size,
        accuracy=accuracy,
        crop=batches.crop,
        trained_on=after_training(batches.training_data, earlier),
    )
