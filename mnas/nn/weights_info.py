"""What a file of weights says besides its tensors; read without torch, which takes seconds to import."""

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mnas.arch import require_int, require_number
from mnas.architecture import Architecture, architecture_from_dict
from mnas.readers import open_regular, parse_json
from mnas.training_data import TrainedOn, read_trained_on, trained_on_json

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
    trained_on: TrainedOn = ()
    """The images of its trainings, the last training first; empty in files written before this was recorded."""


def weights_json(info: WeightsInfo) -> dict[str, Any]:
    """Plain values, for the metadata of this and other formats; `weights_info` reads them."""
    values = asdict(info) | {"arch": info.arch.to_dict()}
    del values["trained_on"]
    return values | ({"trained_on": trained_on_json(info.trained_on)} if info.trained_on else {})


def weights_info(values: Mapping[str, Any]) -> WeightsInfo:
    """The record of values by `weights_json`, each checked. Raises KeyError, TypeError or ValueError for others."""
    info = WeightsInfo(
        arch=architecture_from_dict(values["arch"]),
        classes=_classes(values["classes"]),
        mean=_triple("mean", values["mean"], -1e6),
        std=_triple("std", values["std"], 1e-9),
        input_size=values["input_size"],
        accuracy=values["accuracy"],
        crop=values.get("crop", 1.0),
        trained_on=read_trained_on(values.get("trained_on", [])),
    )
    require_int("input_size", info.input_size, 1, 4096)
    require_number("crop", info.crop, 1e-6, 1)
    if info.accuracy is not None:
        require_number("accuracy", info.accuracy, 0, 1)
    return info


def _classes(values: object) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not values or not all(type(value) is str for value in values):
        raise ValueError(f"classes must be a list of names, but got {reprlib.repr(values)}")
    return tuple(values)


def _triple(name: str, values: object, low: float) -> tuple[float, float, float]:
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise ValueError(f"{name} must be a list of three numbers, but got {reprlib.repr(values)}")
    for value in values:
        require_number(name, value, low, 1e6)
    red, green, blue = values
    return red, green, blue


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
