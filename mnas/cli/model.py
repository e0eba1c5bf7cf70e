"""Options of `predict` and `eval` on MODEL and its metadata."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mnas.cli.console import complain
from mnas.cli.parsing import numbers
from mnas.cli.quiet import runtimes_quiet
from mnas.foreign.limits import most_threads_here
from mnas.names import resolve_arch, resolve_weights
from mnas.predict.model import Model, load_model
from mnas.predict.outputs import Kind

Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Facts about the model that override those in its file."""

    weights: str = ""
    """Weights for a MODEL that is an architecture: timm, torchvision, pretrained or a file. timm and torchvision
    download them, pretrained needs the extra mnas[pretrained], and a file ends in .pth, .pt, .bin or .safetensors."""
    class_file: Path | None = None
    """File with the class names: one per line, or JSON (a list, or an object {"0": NAME, ...})."""
    input_size: int | Auto = "auto"
    """Side of the square input in pixels; auto: the model's."""
    mean: str = ""
    """Mean of pixels from 0 to 1: one number or three (0.485 0.456 0.406, or 0.485,0.456,0.406); by default the
    model's."""
    std: str = ""
    """Standard deviation of pixels, for the input (pixel / 255 - mean) / std; by default the model's."""
    crop: float | Auto = "auto"
    """Side of the central square that the model sees, as a share of the image's shorter side; auto: the model's, else
    1."""
    outputs: Auto | Kind = "auto"
    """Kind of the model's outputs: logits, softmax (probabilities that sum to 1) or sigmoid (an independent probability
    for each class); auto: the kind in the file, else detected from outputs."""
    threads: int | Auto = "auto"
    """Number of threads of the runtime; auto: one per core."""
    allow_changed: bool = False
    """Open a .tflite, .onnx or .pte file of mnas even if it was changed after mnas wrote it."""


def open_model(name: str, options: ModelOptions) -> Model:
    """Return the model that `name` names; print assumptions about it on stderr.

    Raises:
        ImportError, OSError, ValueError: see `load_model` and mnas.names.
    """
    file = resolve_arch(name) if options.weights else resolve_weights(name)
    with runtimes_quiet():
        model = load_model(
            file,
            weights=options.weights or None,
            name=name,
            class_file=options.class_file,
            input_size=None if options.input_size == "auto" else options.input_size,
            mean=numbers("--mean", options.mean),
            std=numbers("--std", options.std),
            crop=None if options.crop == "auto" else options.crop,
            outputs=options.outputs,
            allow_changed=options.allow_changed,
            threads=min(os.cpu_count() or 1, most_threads_here()) if options.threads == "auto" else options.threads,
        )
    for note in model.info.notes:
        complain(f"{name}: {note}")
    return model
