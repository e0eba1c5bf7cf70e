"""Open the model to export: a file of mnas, or an architecture with weights from another source."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mnas.architecture import Architecture
from mnas.export.settings import ExportSettings
from mnas.metadata import ModelMetadata
from mnas.nn.network import Network
from mnas.nn.pretrained import load_pretrained, pretrained_info, unrecorded_images
from mnas.nn.weights import load_weights
from mnas.nn.weights_info import is_weights_file, read_weights_info
from mnas.predict.info import Wanted, class_names
from mnas.predict.labels import read_class_names
from mnas.train.split_seed import seed_beside


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """A model to export."""

    info: ModelMetadata
    network: Callable[[], Network]
    """Returns the network, in evaluation mode."""
    default: Path
    """Path of the files without --out, up to their suffix."""
    beside: int | None = None
    """Seed in the settings beside the weights; None without settings."""
    ours: bool = True
    """Whether mnas wrote the weights."""
    notes: tuple[str, ...] = ()
    """Assumptions about the weights."""


def trained_model(settings: ExportSettings, weights: Path) -> ExportedModel:
    """Return the model in a file of weights that `settings.model` names. Raises ValueError where it cannot be read."""
    run, is_trial, label = settings.model.rpartition("#")
    default = weights.parent / weights.stem
    if not Path(settings.model).exists() and is_trial:  # a run's folder contains only the run's own files
        default = Path(f"{Path(run).name}-{label}")
    return ExportedModel(
        info=read_weights_info(weights),
        network=lambda: load_weights(weights),
        default=default,
        beside=seed_beside(weights),
    )


def pretrained_model(settings: ExportSettings, arch: Architecture, stem: str) -> ExportedModel:
    """Return the architecture that `settings.model` names with `settings.weights`.

    Args:
        stem: name of the files without --out, up to their suffix.

    Raises:
        ImportError: the package with the weights is not installed.
        ValueError: the weights do not exist, cannot be read, do not fit, or have no class names.
    """
    name, source = settings.model, settings.weights
    network = load_pretrained(source, arch, None, name=name)
    wanted = Wanted(classes=None if settings.class_file is None else read_class_names(settings.class_file))
    classes = class_names(wanted, None, network.classifier.out_features, source)
    note = unrecorded_images(source, name)
    return ExportedModel(
        info=pretrained_info(source, network, name=name, classes=classes),
        network=lambda: network,
        default=Path(stem),
        ours=is_weights_file(Path(source)),
        notes=(note,) if note else (),
    )
