"""`mnas.export`: a trained model as files for devices, from Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnas.api.lists import joined
from mnas.api.saying import SAY, Say, silence
from mnas.export.run import ExportedFile, export_model
from mnas.export.settings import ExportSettings
from mnas.names import resolve_weights
from mnas.settings import from_options, signature_of


def export(
    model: str | Path, to: str | Sequence[str] = ("litert",), *, say: Say = silence, **options: Any
) -> list[ExportedFile]:
    """Write a trained model for LiteRT, ONNX or ExecuTorch, and compare every file with the network.

    A file gets its name only after its own runtime has answered as the network does.

    Args:
        model: a .safetensors file of ours, the folder of a training, or a trial with weights (runs/NAME#17).
        to: litert, onnx or executorch, or several of them.
        say: takes lines about the images, `print` for example.
        options: those of `mnas export --help-all`, with underscores: `int8`, `data`, `out`, `overwrite`, ...

    Returns:
        The files, in the order of `to`, each with its comparison (`gate`).

    Raises:
        ValueError: an option that is unknown or out of its range, weights that cannot be read, or a file that differs
            from the network by more than allowed; the other files are written all the same.
        ImportError: a format's package is missing.

    Example:
        >>> [file] = mnas.export("trained/mnasnet-small@0.25-s8-16px", to=("litert",), speed_s=0)
        >>> file.path.name
        'model.tflite'
        >>> file.gate.passed
        True
    """
    settings = from_options(ExportSettings, {"model": str(model), **joined({"to": to, **options}, "to")})
    result = export_model(settings, resolve_weights(settings.model), silence)
    for note in result.notes:
        say(note)
    result.require_all()
    return list(result.files)


export.__signature__ = signature_of(  # type: ignore[attr-defined]
    ExportSettings, returns=list[ExportedFile], more=(SAY,), defaults={"to": ("litert",)}
)
