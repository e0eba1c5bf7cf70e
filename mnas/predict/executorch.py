"""Open ExecuTorch files (.pte), with the metadata in the file beside them (mnas/foreign/sidecar.py)."""

import importlib.util
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


def open_executorch(path: Path, wanted: Wanted) -> tuple[ModelInfo, Run]:
    """Return the model in a .pte file, which takes one image at a time.

    Raises:
        ImportError: executorch is missing.
        OSError: the file cannot be read.
        ValueError: the file is damaged or no classifier of RGB images, or neither file nor `wanted` gives a needed
            value.
    """
    name = str(path)
    content = _program(path)
    own = own_metadata(path, content, allow_changed=wanted.allow_changed)
    session = ForeignSession("executorch", path, wanted.threads)
    entry = image_entry(session, name)
    classes = class_outputs([output.shape for output in session.outputs], name)
    size = input_size(entry, wanted, name)
    moments = normalisation(entry, wanted, None if own is None or own.mean is None else own.normalisation, name)
    if entry.batch != 1:
        raise ValueError(f"a .pte file must take one image at a time, but {name!r} takes {entry.batch}")

    run = in_a_child(session, entry, moments, classes, size)
    info = ModelInfo(
        format="executorch",
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


def _program(path: Path) -> bytes:
    """Return the file's content. Raises ImportError without executorch, and ValueError where the file is no program."""
    content = read_regular(path, MODEL_BYTES)
    if content[4:6] != b"ET":
        raise ValueError(
            f"a .pte file must be an ExecuTorch program, but {str(path)!r} ({len(content)} bytes) is something else"
        )
    if importlib.util.find_spec("executorch") is None:
        raise ImportError("running .pte files needs executorch: pip install 'mnas[executorch]'")
    return content
