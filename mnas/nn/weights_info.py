"""What a file of weights says besides its tensors; read without torch, which takes seconds to import."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mnas.architecture import Architecture, architecture_from_dict
from mnas.readers import open_regular, parse_json

KEY = "mnas"
"""The only entry of the metadata: safetensors orders several at random, and equal weights are to be equal bytes."""


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


def read_weights_info(path: Path) -> WeightsInfo:
    """The metadata of a file by `save_weights`, without reading its tensors.

    Raises:
        ValueError: no such file, or one that is not of `save_weights`.
    """
    try:
        open_regular(path).close()  # safetensors would wait for a pipe
        with safe_open(path, "numpy") as file:
            values = parse_json((file.metadata() or {})[KEY])
        return weights_info(values)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"weights must be a .safetensors file written by mnas, but got {str(path)!r} ({reason})"
        ) from None
