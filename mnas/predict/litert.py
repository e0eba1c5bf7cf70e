"""Open LiteRT files (.tflite): ours by their metadata, others by their input, output and standard metadata."""

import struct
from pathlib import Path

import numpy as np

from mnas.data.image import Pixels
from mnas.foreign.session import ForeignSession, TensorSpec
from mnas.metadata import ModelMetadata, Triple
from mnas.predict.info import ModelInfo, Run, Wanted, class_names
from mnas.predict.official import OfficialMetadata, read_official
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
from mnas.tflite.metadata import metadata_entry


def open_litert(path: Path, wanted: Wanted) -> tuple[ModelInfo, Run]:
    """Return the model in a .tflite file, quantised or not.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged or no classifier of RGB images, or neither file nor `wanted` gives a needed
            value.
    """
    file = read_regular(path, MODEL_BYTES)
    name = str(path)
    if file[4:8] != b"TFL3":
        raise ValueError(f"a .tflite file must be a LiteRT model, but {name!r} ({len(file)} bytes) is something else")
    own = own_metadata(path, file, allow_changed=wanted.allow_changed)
    official = OfficialMetadata() if own is not None else _official(file, name)
    session = ForeignSession("litert", path, wanted.threads)
    outputs = session.outputs
    entry = image_entry(session, name)
    size = input_size(entry, wanted, name)
    classes = class_outputs([output.shape for output in outputs], name)
    moments = normalisation(entry, wanted, _moments(own, official), name)
    session.resize((1, 3, size, size) if entry.channels_first else (1, size, size, 3))
    # one image at a time, as on devices (docs/measurements/prediction.md)
    run = in_a_child(session, entry, moments, classes, size)
    info = ModelInfo(
        format="litert",
        classes=class_names(wanted, (own.classes or None) if own else official.labels, classes, name),
        outputs=classes,
        input_size=size,
        mean=None if moments is None else moments[0],
        std=None if moments is None else moments[1],
        crop=wanted.crop or (1.0 if own is None else own.crop),
        arch=None if own is None else own.arch,
        probabilities=_softmaxed(outputs[0], run, size) if own is None else own.softmax,
        size_bytes=len(file),
        ours=own is not None,
        trained_on=() if own is None else own.trained_on,
        notes=() if moments else (f"pixels from 0 to 255 are mapped to the whole range of the {entry.dtype} input",),
    )
    return info, run


def _official(file: bytes, name: str) -> OfficialMetadata:
    """Return the format's standard metadata, for files of other programs."""
    try:
        entry = metadata_entry(file, "TFLITE_METADATA")
        return OfficialMetadata() if entry is None else read_official(entry, file)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None
    except (AttributeError, LookupError, MemoryError, TypeError, OverflowError, struct.error) as error:
        # FlatBuffers' own reader checks no offsets
        raise ValueError(f"{name!r} is damaged or truncated; copy it again ({error})") from None


def _moments(own: ModelMetadata | None, official: OfficialMetadata) -> tuple[Triple, Triple] | None:
    if own is None:
        return official.normalisation
    return None if own.mean is None else own.normalisation


def _softmaxed(output: TensorSpec, run: Run, size: int) -> bool:
    """Return whether outputs are probabilities: by the range of a quantised output, else by trying."""
    if output.scale > 0:
        limits = np.iinfo(np.dtype(output.dtype))
        low, high = ((limit - output.zero_point) * output.scale for limit in (int(limits.min), int(limits.max)))
        return low >= 0 and high <= 1.001  # the format prescribes steps of 1/256 from the lowest number for a softmax
    pixels: Pixels = probe(size)
    return are_probabilities(run(pixels))
