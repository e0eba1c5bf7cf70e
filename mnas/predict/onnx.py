"""Open ONNX files (.onnx) in onnxruntime on the CPU: ours by their metadata, others by their input and output."""

import importlib.util
from dataclasses import replace
from pathlib import Path

from mnas.foreign.session import ForeignSession
from mnas.predict.info import ModelInfo, Run, Wanted, class_names
from mnas.predict.own import own_metadata
from mnas.predict.tensors import (
    are_probabilities,
    class_outputs,
    image_entry,
    in_a_child,
    input_size,
    normalisation,
    probe,
)
from mnas.readers import MODEL_BYTES, read_regular

_BATCH = 16


def open_onnx(path: Path, wanted: Wanted) -> tuple[ModelInfo, Run]:
    """Return the model in an .onnx file.

    Raises:
        ImportError: onnxruntime is missing.
        OSError: the file cannot be read.
        ValueError: the file is damaged or no classifier of RGB images, or neither file nor `wanted` gives a needed
            value.
    """
    content = read_regular(path, MODEL_BYTES)
    name = str(path)
    if importlib.util.find_spec("onnxruntime") is None:
        raise ImportError("running .onnx files needs onnxruntime: pip install 'mnas[onnx]'")
    own = own_metadata(path, content, allow_changed=wanted.allow_changed)
    session = ForeignSession("onnx", path, wanted.threads)
    entry = image_entry(session, name)
    classes = class_outputs([output.shape for output in session.outputs], name)
    size = input_size(entry, _with_size(wanted, None if own is None else own.input_size), name)
    moments = normalisation(entry, wanted, None if own is None or own.mean is None else own.normalisation, name)
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
        size_bytes=len(content),
        ours=own is not None,
        trained_on=() if own is None else own.trained_on,
        notes=() if moments else (f"pixels from 0 to 255 are mapped to the whole range of the {entry.dtype} input",),
    )
    return info, run


def _with_size(wanted: Wanted, recorded: int | None) -> Wanted:
    return wanted if wanted.input_size is not None or recorded is None else replace(wanted, input_size=recorded)
