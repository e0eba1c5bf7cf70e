"""A trained network in one file: safetensors, with all that prediction needs in its metadata."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open

from mnas.architecture import Architecture, architecture_from_dict
from mnas.atomic import write_atomic
from mnas.nn.network import Network, build_network

_KEY = "mnas"  # a single entry: safetensors orders several of them at random, and equal weights are to be equal bytes


@dataclass(frozen=True, kw_only=True)
class WeightsInfo:
    """What a weights file says besides its tensors."""

    arch: Architecture
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    """Of pixels as 0..1: the network takes (pixel / 255 - mean) / std."""
    std: tuple[float, float, float]
    input_size: int
    accuracy: float | None
    """Of exactly these weights, on the validation images; None where nobody has scored them."""
    crop: float = 1.0
    """Share of the side of an image's centre square that the network is to see (ImageNet's evaluation: 0.875)."""


def weights_json(info: WeightsInfo) -> dict[str, Any]:
    """Plain values, for the metadata of this and other formats; `weights_info` reads them."""
    return asdict(info) | {"arch": info.arch.to_dict()}


def weights_info(values: Mapping[str, Any]) -> WeightsInfo:
    """The record of values by `weights_json`. Raises KeyError, TypeError or ValueError for others."""
    return WeightsInfo(
        arch=architecture_from_dict(values["arch"]),
        classes=tuple(values["classes"]),
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
        input_size=values["input_size"],
        accuracy=values["accuracy"],
        crop=values.get("crop", 1.0),
    )


def weights_bytes(network: Network, info: WeightsInfo) -> bytes:
    """The network's parameters and batch-norm statistics, as a file's content."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return safetensors.torch.save(tensors, {_KEY: json.dumps(weights_json(info))})


def save_weights(path: Path, network: Network, info: WeightsInfo) -> None:
    """Write `weights_bytes`, whole or not at all. Raises OSError."""
    write_atomic(path, weights_bytes(network, info))


def network_of_bytes(file: bytes) -> tuple[Network, WeightsInfo]:
    """The network of `weights_bytes`, in evaluation mode, on the CPU. Raises ValueError for other bytes."""
    try:
        header = json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])
        info = weights_info(json.loads(header["__metadata__"][_KEY]))
        network = build_network(info.arch, len(info.classes))
        network.load_state_dict(safetensors.torch.load(file))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"weights must be a .safetensors file written by mnas, but got other bytes ({error})"
        ) from None
    return network.eval(), info


def read_weights_info(path: Path) -> WeightsInfo:
    """The metadata of a file by `save_weights`, without reading its tensors.

    Raises:
        ValueError: no such file, or one that is not of `save_weights`.
    """
    try:
        with safe_open(path, "pt") as file:
            values = json.loads((file.metadata() or {})[_KEY])
        return weights_info(values)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"weights must be a .safetensors file written by mnas, but got {str(path)!r} ({error})"
        ) from None


def load_weights(path: Path, num_classes: int | None = None) -> Network:
    """The network of a file by `save_weights`, in evaluation mode, on the CPU.

    Args:
        num_classes: what the caller expects; None for what the file has.

    Raises:
        ValueError: as `read_weights_info`, or another number of classes.
    """
    info = read_weights_info(path)
    if num_classes is not None and num_classes != len(info.classes):
        raise ValueError(f"{str(path)!r} must have {num_classes} classes, but got {len(info.classes)}")
    network = build_network(info.arch, len(info.classes))
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"the tensors in {str(path)!r} must fit its architecture, but got {error}") from None
    return network.eval()
