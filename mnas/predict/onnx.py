"""ONNX files (.onnx), run by onnxruntime on the processor: ours by what they say of themselves, those of others too."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

from mnas.foreign.session import ForeignSession
from mnas.predict.info import ModelInfo, Run, Wanted, class_names
from mnas.predict.tensors import (
    are_probabilities,
    class_outputs,
    image_entry,
    in_a_child,
    input_size,
    normalisation,
    probe,
)
from mnas.readers import parse_json

METADATA_KEY = "mnas"
"""Of `metadata_props`; its value is the JSON of `mnas.nn.weights.weights_json`."""
_BATCH = 16


def open_onnx(path: Path, wanted: Wanted) -> tuple[ModelInfo, Run]:
    """The model in an .onnx file.

    Raises:
        ImportError: onnxruntime is missing.
        OSError: the file cannot be read.
        ValueError: it is damaged, or no classifier of RGB images, or what it does not say is missing in `wanted`.
    """
    size_bytes = path.stat().st_size
    name = str(path)
    if importlib.util.find_spec("onnxruntime") is None:
        raise ImportError("running .onnx files needs onnxruntime: pip install 'mnas[onnx]'")
    session = ForeignSession("onnx", path, wanted.threads)
    entry = image_entry(session, name)
    classes = class_outputs([output.shape for output in session.outputs], name)
    own = _metadata(session, name)
    size = input_size(entry, _with_size(wanted, None if own is None else own.input_size), name)
    moments = normalisation(entry, wanted, None if own is None else (own.mean, own.std), name)
    run = in_a_child(session, entry, moments, classes, size, entry.batch or _BATCH)
    info = ModelInfo(
        format="onnx",
        classes=class_names(wanted, None if own is None else own.classes, classes, name),
        outputs=classes,
        input_size=size,
        mean=None if moments is None else moments[0],
        std=None if moments is None else moments[1],
        crop=wanted.crop or (1.0 if own is None else own.crop),
        arch=None if own is None else own.arch,
        probabilities=own is None and are_probabilities(run(probe(size))),
        size_bytes=size_bytes,
        ours=own is not None,
        trained_on=() if own is None else own.trained_on,
        notes=() if moments else (f"pixels of 0 to 255 stand for the whole range of the {entry.dtype} input",),
    )
    return info, run


def _with_size(wanted: Wanted, found: int | None) -> Wanted:
    return wanted if wanted.input_size is not None or found is None else replace(wanted, input_size=found)


def _metadata(session: ForeignSession, name: str) -> Any:
    """The WeightsInfo in a file of ours, None for others."""
    text = session.text
    if text is None:
        return None
    from mnas.nn.weights_info import weights_info  # torch takes seconds, and files of others need none of it

    try:
        return weights_info(parse_json(text))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the metadata of {name!r} must be those of mnas, but got {error!r}") from None
