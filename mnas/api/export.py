"""`mnas.export`: export a trained model to files for devices, from Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnas.api.keywords import names_keywords
from mnas.api.lists import joined
from mnas.api.saying import SAY, Say, silence
from mnas.export.model import ExportedModel, pretrained_model, trained_model
from mnas.export.run import ExportedFile, export_model
from mnas.export.settings import ExportSettings
from mnas.names import as_file_name, resolve_arch, resolve_weights
from mnas.settings import from_options, signature_of


@names_keywords
def export(
    model: str | Path, to: str | Sequence[str] = ("litert",), *, say: Say = silence, **options: Any
) -> list[ExportedFile]:
    """Export a trained model to LiteRT, ONNX or ExecuTorch, and compare every file with the network.

    A file gets its name only after its runtime has reproduced the network's outputs.

    Args:
        model: weights file (.safetensors) of mnas, folder of a training, trial with weights (runs/NAME#17), or, with
            `weights`, an architecture (mnasnet-a1, arch.json, ...).
        to: litert, onnx or executorch, or several of them.
        say: function that receives lines of text about the images, such as `print`.
        options: options of `mnas export --help-all`, with underscores: `int8`, `data`, `out`, `overwrite`, ...

    Returns:
        The files, in the order of `to`, each with its comparison (`gate`).

    Raises:
        ValueError: an option is unknown or out of range, the weights cannot be read, or a file differs from the network
            by more than allowed. The other files are still written.
        ImportError: the package of a format or of the weights is missing.

    Examples:
        >>> [file] = mnas.export("trained/mnasnet-small@0.25-s8-16px", to=("litert",), speed_s=0)
        >>> file.path.name
        'model.tflite'
        >>> file.gate.passed
        True
    """
    settings = from_options(ExportSettings, {"model": str(model), **joined({"to": to, **options}, "to")})
    result = export_model(settings, open_exported(settings), silence)
    for note in result.notes:
        say(note)
    result.require_all()
    return list(result.files)


def open_exported(settings: ExportSettings) -> ExportedModel:
    """Return the model that the settings name.

    Raises:
        ImportError, ValueError: the model or its weights do not exist or cannot be read; see `pretrained_model`.
    """
    if not settings.weights:
        return trained_model(settings, resolve_weights(settings.model))
    arch = resolve_arch(settings.model)
    return pretrained_model(settings, arch, as_file_name(settings.model, arch))


export.__signature__ = signature_of(  # type: ignore[attr-defined]
    ExportSettings, returns=list[ExportedFile], more=(SAY,), defaults={"to": ("litert",)}
)
