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
    """Statements about the model that override its file."""

    weights: str = ""
    """MODEL is an architecture (mnasnet-a1, arch.json, ...) with these weights: timm or torchvision (downloads them),
    or a .pth, .pt, .bin or .safetensors file."""
    class_file: Path | None = None
    """Names of the classes: one a line, or JSON (a list, or an object {"0": NAME, ...})."""
    input_size: int | Auto = "auto"
    """Side of the square image in pixels; auto: the model's own."""
    mean: str = ""
    """Mean of pixels from 0 to 1, one number or three (0.485 0.456 0.406, or 0.485,0.456,0.406); by default the model's
    own."""
    std: str = ""
    """Standard deviation: the input is (pixel / 255 - mean) / std; by default the model's own."""
    crop: float | Auto = "auto"
    """Share of the side of an image's centre square that the model sees; auto: the model's own, 1 for other files."""
    outputs: Auto | Kind = "auto"
    """Kind of the model's outputs. logits; softmax: probabilities that sum to 1; sigmoid: a probability for each class
    by itself; auto: the kind in the file, else found by trying."""
    threads: int | Auto = "auto"
    """Threads of the runtime; auto: one for each core."""
    allow_changed: bool = False
    """Open a .tflite, .onnx or .pte file of mnas although it was changed after mnas wrote it."""


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
