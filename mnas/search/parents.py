"""The parents of a search: networks with known weights that `--parent` names."""

from collections.abc import Container
from dataclasses import dataclass

from mnas.names import resolve_arch, resolve_weights
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
