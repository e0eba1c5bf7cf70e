"""The parents of a search: networks with known weights that `--parent` names.

Where networks are cut from a parent, it is fine-tuned once for the same images, size and recipe; later searches find it
in the user's cache.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mnas.data.dataset import Dataset
from mnas.evaluate.config import ProxyConfig
from mnas.folders import user_cache_dir
from mnas.names import as_file_name, resolve_arch, resolve_weights
from mnas.space.candidates import Parent
from mnas.train.initial import WeightsSource, parent_of
from mnas.zoo.weights import PACKAGES, TIMM, TORCHVISION, published_name

PUBLISHED: dict[str, Container[str]] = {"pretrained": PACKAGES, "timm": TIMM, "torchvision": TORCHVISION}
"""Source of published weights -> the names of its networks; the first source that has a network is the default."""


@dataclass(frozen=True, kw_only=True)
class KnownWeights:
    """A parent, and the source that its weights are opened from."""

    parent: Parent
    source: WeightsSource


def read_parents(option: str) -> tuple[KnownWeights, ...]:
    """Return the parents in `NAME,NAME=WEIGHTS,...`, with their weights read once.

    Raises:
        ValueError: a name is unknown or given twice, or its weights are missing or do not fit; one line.
        ImportError: the package with the weights is not installed.
    """
    parents = tuple(_read(part) for part in option.split(","))
    names = [each.parent.name for each in parents]
    if len(set(names)) < len(names):
        raise ValueError(f"--parent must name each parent once, but got {option}")
    return parents


def _read(text: str) -> KnownWeights:
    name, _, weights = text.partition("=")
    if not name or text.endswith("="):
        raise ValueError(f"--parent must be NAME or NAME=WEIGHTS, several joined by commas, but got {text!r}")
    try:
        arch = resolve_arch(name)
        if not weights:
            weights = _published_by(name) or str(resolve_weights(name))
        elif weights not in PUBLISHED:
            weights = str(resolve_weights(weights))
        source = WeightsSource(name=name, arch=arch, weights=weights)
        return KnownWeights(parent=parent_of(source), source=source)
    except ValueError as error:
        fault = str(error).replace("--weights FILE", f"--parent {name}=FILE")
        fault = fault.replace("use --weights pretrained", f"use {name}=pretrained").removeprefix("--weights ")
        raise ValueError(f"--parent {text}: {fault}") from None


def _published_by(name: str) -> str:
    """Return the first source that has published weights of the network; empty where none has."""
    return next((source for source, networks in PUBLISHED.items() if published_name(name) in networks), "")


def fine_tune(
    parents: Sequence[KnownWeights],
    sources: Mapping[str, WeightsSource],
    dataset: Dataset,
    proxy: ProxyConfig,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Fine-tune each parent that has a source on the images at the largest size, and put the weights there.

    Raises:
        TrainingError: a training diverged, or memory is exhausted.
        KeyboardInterrupt: a signal arrived; the next call resumes.
        OSError: a folder cannot be written.
    """
    for each in parents:
        if (source := sources.get(each.parent.name)) is None or Path(source.weights).exists():
            continue
        path = Path(source.weights)
        path.parent.mkdir(exist_ok=True)
        half = path.with_name(f".{path.name}.tmp")
        shutil.copyfile(_fine_tuned(each, dataset, proxy, seed, say), half)
        half.replace(path)


def _fine_tuned(
    parent: KnownWeights, dataset: Dataset, proxy: ProxyConfig, seed: int, say: Callable[[str], None]
) -> Path:
    """Return the weights of the fine-tuned parent in the user's cache; train them if they are not there."""
    # these import torch and timm, which take seconds
    from mnas.data.arrays import ArrayBatches
    from mnas.train.initial import network_for, trained_on
    from mnas.train.loop import train
    from mnas.train.presets.finetune import FINETUNE
    from mnas.train.process import TrainingStopped
    from mnas.train.watch import SayingWatcher

    name, weights = parent.parent.name, parent.source.weights
    config = dataclasses.replace(
        FINETUNE, mirror=proxy.mirror, accelerator=proxy.accelerator, threads=proxy.threads, seed=seed
    ).for_images(len(dataset.train))
    described = [parent.parent.digest, dataset.fingerprint, dataset.input_size, config.identity(), proxy.mirror]
    key = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:24]
    folder = user_cache_dir() / "parents" / f"{as_file_name(name, parent.parent.arch)}-{dataset.input_size}px-{key}"
    network, (mean, std) = network_for(parent.source, dataset.classes, seed)
    batches = ArrayBatches(dataclasses.replace(dataset, mean=mean, std=std), config.variation(), seed)
    say(f"fine-tuning the parent {name} at {dataset.input_size} px, {config.fixed_epochs} epochs ({folder})")
    earlier = trained_on(weights, lambda line: None)  # the search has printed its warning
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        trained = train(
            network.arch,
            batches,
            config,
            folder,
            initial=network,
            earlier=earlier,
            resume=True,
            watcher=SayingWatcher(say, config.fixed_epochs),
            title=name,
        )
    except TrainingStopped as stop:  # as at any other point of a search
        interrupt = KeyboardInterrupt()
        setattr(interrupt, "number", int(str(stop.code)) - 128)  # noqa: B010
        raise interrupt from None
    test = "" if trained.test_accuracy is None else f", test {trained.test_accuracy:.1%}"
    say(f"parent {name}: validation accuracy {trained.accuracy:.1%}{test}; {trained.seconds:.0f} s")
    return trained.weights
