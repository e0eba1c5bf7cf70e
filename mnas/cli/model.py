"""What `predict` and `eval` have in common: MODEL, and what a user says about it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mnas.names import resolve_arch, resolve_weights
from mnas.predict.model import Model, load_model

Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What goes before what the model's file says."""

    weights: str = ""
    """MODEL is an architecture (mnasnet-a1, arch.json, ...) with these weights: timm or torchvision (downloads them),
    or a .pth, .pt, .bin or .safetensors file."""
    class_file: Path | None = None
    """Names of the classes: one a line, or JSON (a list, or an object {"0": NAME, ...})."""
    input_size: int | Auto = "auto"
    """Side of the square image in pixels; auto: the model's own."""
    mean: tuple[float, ...] = ()
    """Of pixels as 0 to 1, one number or three; not given: the model's own."""
    std: tuple[float, ...] = ()
    """The model's input is (pixel / 255 - mean) / std; not given: the model's own."""
    crop: float | Auto = "auto"
    """Share of the side of an image's centre square that the model sees; auto: the model's own, 1 for other files."""
    threads: int | Auto = "auto"
    """Threads of the runtime; auto: one for each core."""


def open_model(name: str, options: ModelOptions) -> Model:
    """The model that `name` names; what had to be assumed about it is told on stderr.

    Raises:
        ImportError, OSError, ValueError: as `load_model`, and as the names of mnas.names.
    """
    model = load_model(
        resolve_arch(name) if options.weights else resolve_weights(name),
        weights=options.weights or None,
        name=name,
        class_file=options.class_file,
        input_size=None if options.input_size == "auto" else options.input_size,
        mean=options.mean or None,
        std=options.std or None,
        crop=None if options.crop == "auto" else options.crop,
        threads=(os.cpu_count() or 1) if options.threads == "auto" else options.threads,
    )
    for note in model.info.notes:
        print(f"mnas: {name}: {note}", file=sys.stderr)
    return model
