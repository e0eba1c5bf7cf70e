"""The standard metadata of a LiteRT file, which ML Kit, MediaPipe and Android Studio read.

Schema: metadata_schema.fbs (tensorflow/tflite-support and google-ai-edge/mediapipe), identifier M001. None of our
dependencies ships it, so the few tables are written by their field numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import flatbuffers
import numpy as np

from mnas.metadata import Triple

LABELS_FILE = "labels.txt"
OFFICIAL_ENTRY = "TFLITE_METADATA"
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES, _BOUNDING_BOX_PROPERTIES = 1, 2, 3  # union ContentProperties
_NORMALIZATION_OPTIONS = 1  # union ProcessUnitOptions
_RGB = 1  # enum ColorSpaceType
_BOUNDARIES = 1  # enum BoundingBoxType
_LABELS = {"axis": 2, "value": 3}  # enum AssociatedFileType


@dataclass(frozen=True, kw_only=True)
class OutputTensor:
    """The description of one output."""

    name: str
    labels: Literal["axis", "value"] | None = None
    """Meaning of the lines of `labels.txt`: places along the last axis, or numbers in the tensor; None: no file."""
    corners: tuple[int, int, int, int] | None = None
    """For boxes in shares of the image, the places of left, top, right and bottom in a row; None: not boxes."""
    each: bool = False
    """Whether each row along the second axis is a separate result, such as one of several objects."""


def official_metadata(
    name: str,
    moments: tuple[Triple, Triple] | None,
    outputs: Sequence[OutputTensor],
    *,
    group: tuple[str, Sequence[str]] | None = None,
) -> bytes:
    """Return a ModelMetadata table for a model of one RGB image.

    Args:
        name: name of the model.
        moments: mean and standard deviation of pixels in [0, 1]; None: not recorded.
        outputs: outputs in the order of the graph.
        group: name of a result, and the names of the outputs that together describe it.
    """
    b = flatbuffers.Builder(1024)
    image = {0: b.CreateString("image"), 3: _content(b, _IMAGE_PROPERTIES, _table(b, {}, enums={0: _RGB}))}
    if moments is not None:
        # The format's pixels are 0 to 255. MediaPipe refuses three numbers, so equal ones are written once.
        pairs = list(zip(*moments, strict=True))
        numbers = 255 * np.array(pairs if len(set(pairs)) > 1 else pairs[:1])
        mean, std = numbers.astype(np.float32).T
        options = {0: b.CreateNumpyVector(mean), 1: b.CreateNumpyVector(std)}
        unit = _table(b, {1: _table(b, options)}, enums={0: _NORMALIZATION_OPTIONS})
        image[4] = _vector(b, [unit])
    described = [_output(b, output) for output in outputs]
    subgraph = {2: _vector(b, [_table(b, image)]), 3: _vector(b, [_table(b, fields) for fields in described])}
    if group is not None:
        title, names = group
        tensors = _vector(b, [b.CreateString(each) for each in names])
        subgraph[8] = _vector(b, [_table(b, {0: b.CreateString(title), 1: tensors})])
    model = {
        0: b.CreateString(name),
        3: _vector(b, [_table(b, subgraph)]),
        7: b.CreateString("1.0.0" if group is None else "1.2.0"),  # of the metadata parser
    }
    b.Finish(_table(b, model), file_identifier=b"M001")
    return bytes(b.Output())


def _output(b: flatbuffers.Builder, output: OutputTensor) -> dict[int, int]:
    """Return the fields of a TensorMetadata table."""
    fields = {0: b.CreateString(output.name)}
    if output.corners is None:
        kind, properties = _FEATURE_PROPERTIES, _table(b, {})
    else:
        order = b.CreateNumpyVector(np.array(output.corners, np.uint32))
        kind, properties = _BOUNDING_BOX_PROPERTIES, _table(b, {0: order}, enums={1: _BOUNDARIES})
    fields[3] = _content(b, kind, properties, each=output.each)
    if output.labels is not None:
        file = _table(b, {0: b.CreateString(LABELS_FILE)}, enums={2: _LABELS[output.labels]})
        fields[6] = _vector(b, [file])
    return fields


def _content(builder: flatbuffers.Builder, kind: int, properties: int, *, each: bool = False) -> int:
    """Return a Content table; `each`: every row of the second axis is a content of its own."""
    fields = {1: properties}
    if each:
        builder.StartObject(2)
        for field in (0, 1):
            builder.PrependInt32Slot(field, 2, 0)
        fields[2] = int(builder.EndObject())
    return _table(builder, fields, enums={0: kind})


def _table(builder: flatbuffers.Builder, offsets: Mapping[int, int], *, enums: Mapping[int, int] = {}) -> int:
    """Return a table of references (`offsets`) and one-byte enumerations, by field number."""
    builder.StartObject(1 + max((*offsets, *enums), default=-1))
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, value in enums.items():
        builder.PrependUint8Slot(field, value, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
