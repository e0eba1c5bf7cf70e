"""ExecuTorch files (.pte) with what they say of themselves beside them, in FILE.pte.json."""

import hashlib
import importlib.util
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
from mnas.readers import MODEL_BYTES, read_json, read_regular

SIDECAR = ".json"
"""Added to the file's name; the JSON of `mnas.nn.weights.weights_json`."""


def open_executorch(path: Path, wanted: Wanted) -> tuple[ModelInfo, Run]:
    """The model in a .pte file, which takes one image at a time.

    Raises:
        ImportError: executorch is missing.
        OSError: the file cannot be read.
        ValueError: it is damaged, or no classifier of RGB images, or what it does not say is missing in `wanted`.
    """
    name = str(path)
    own, digest = _sidecar(path)
    _check(path, digest)
    session = ForeignSession("executorch", path, wanted.threads)
    entry = image_entry(session, name)
    classes = class_outputs([output.shape for output in session.outputs], name)
    size = input_size(entry, wanted, name)
    moments = normalisation(entry, wanted, None if own is None else (own.mean, own.std), name)
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
        size_bytes=path.stat().st_size,
        ours=own is not None,
        trained_on=() if own is None else own.trained_on,
        notes=() if moments else (f"pixels of 0 to 255 stand for the whole range of the {entry.dtype} input",),
    )
    return info, run


def _check(path: Path, digest: str | None) -> None:
    """Raises ImportError, and ValueError where the file is no program, or not the one that is described beside it."""
    content = read_regular(path, MODEL_BYTES)
    if content[4:6] != b"ET":
        raise ValueError(
            f"a .pte file must be an ExecuTorch program, but {str(path)!r} has {len(content)} bytes of something else"
        )
    if importlib.util.find_spec("executorch") is None:
        raise ImportError("running .pte files needs executorch: pip install 'mnas[executorch]'")
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(
            f"{str(path)!r} must be the file that {path.name + SIDECAR} beside it was written for, but got another or "
            "a damaged one; export it again"
        )


def _sidecar(path: Path) -> tuple[Any, str | None]:
    """The WeightsInfo beside the file and the file's SHA-256, None where there are none."""
    beside = path.with_name(path.name + SIDECAR)
    if not beside.exists():
        return None, None
    from mnas.nn.weights_info import weights_info

    try:
        values = read_json(beside)
        return weights_info(values), values.get("sha256")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(beside)!r} must be what mnas export wrote, but got {error!r}") from None
