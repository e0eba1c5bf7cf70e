"""What a LiteRT file says of itself: architecture, labels, and how its input is normalised.

Kept twice, both inside the file. Entry `mnas`, JSON, is what `read_metadata` reads; it survives tools that rewrite the
graph. Entry `TFLITE_METADATA`, with `labels.txt` zipped to the file's end, is the format that ML Kit, MediaPipe
and Android Studio read (tensorflow/tflite-support, metadata_schema.fbs, identifier M001); no package that we depend on
ships its schema, so the few tables used are written by their field numbers.
"""

import io
import json
import math
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mnas.architecture import Architecture, architecture_from_dict
from mnas.labels import label_fault, shown
from mnas.readers import parse_json
from mnas.training_data import TrainedOn, read_trained_on, trained_on_json

LABELS_FILE = "labels.txt"
_ENTRY = "mnas"
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES = 2, 1  # union ContentProperties
_NORMALIZATION_OPTIONS = 1  # union ProcessUnitOptions
_RGB = 1  # enum ColorSpaceType
_TENSOR_AXIS_LABELS = 2  # enum AssociatedFileType


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """The network's input is (pixel - mean) / std, channel by channel, of RGB pixels in [0, 1].

    Raises ValueError where a field is out of its range.
    """

    mean: tuple[float, float, float]
    """Of pixels in [0, 1]."""
    std: tuple[float, float, float]
    """Of pixels in [0, 1]; above 0."""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = tuple(float(v) for v in getattr(self, name))
            low = -math.inf if name == "mean" else 0.0
            if len(values) != 3 or not all(math.isfinite(v) and v > low for v in values):
                rule = "three finite numbers" + (" above 0" if name == "std" else "")
                raise ValueError(f"{name} must be {rule}, one a channel, but got {getattr(self, name)!r}")
            object.__setattr__(self, name, values)


@dataclass(frozen=True, kw_only=True)
class FileMetadata:
    """What a LiteRT file of ours carries beside its graph; raises ValueError where fields do not fit together."""

    arch: Architecture
    """The network."""
    input_size: int
    """Side of the images, pixels."""
    num_classes: int
    """Width of the output."""
    labels: tuple[str, ...] = ()
    """The classes' names in order of the outputs; empty if not recorded."""
    normalisation: Normalisation | None = None
    """How images become inputs; None if not recorded."""
    softmax: bool = False
    """Whether the output is probabilities instead of logits."""
    crop: float = 1.0
    """Share of the side of an image's centre square that the input shows (ImageNet's evaluation: 0.875)."""
    trained_on: TrainedOn = ()
    """The images of the network's trainings, the last training first; empty if not recorded."""

    def __post_init__(self) -> None:
        self.arch.check_input_size(self.input_size)
        if type(self.num_classes) is not int or self.num_classes < 1:
            raise ValueError(f"num_classes must be an integer of 1 or more, but got {self.num_classes!r}")
        if self.labels and len(self.labels) != self.num_classes:
            raise ValueError(
                f"labels must be one for each of the {self.num_classes} classes, but got {len(self.labels)}"
            )
        for label in self.labels:
            if fault := label_fault(label):
                raise ValueError(f"a label must be one line of text, but got {shown(label)} ({fault})")


def metadata_entries(metadata: FileMetadata) -> dict[str, bytes]:
    """The file's metadata entries: name -> content."""
    normalisation = metadata.normalisation
    values = {
        "arch": metadata.arch.to_dict(),
        "fingerprint": metadata.arch.fingerprint,
        "input_size": metadata.input_size,
        "num_classes": metadata.num_classes,
        "labels": list(metadata.labels),
        "mean": None if normalisation is None else list(normalisation.mean),
        "std": None if normalisation is None else list(normalisation.std),
        "softmax": metadata.softmax,
        "crop": metadata.crop,
    }
    if metadata.trained_on:  # without it the bytes are those that earlier versions wrote
        values["trained_on"] = trained_on_json(metadata.trained_on)
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
    return {_ENTRY: text.encode(), "TFLITE_METADATA": _tflite_metadata(metadata)}


def read_metadata(model: bytes) -> FileMetadata:
    """What `write_tflite` put into `model`.

    Raises:
        ValueError: the bytes are no LiteRT file, or one not written by mnas.
    """
    if not schema.Model.ModelBufferHasIdentifier(model, 0):
        raise ValueError("a LiteRT file must have the identifier TFL3, but got other bytes")
    try:
        text = metadata_entry(model, _ENTRY)
    except (IndexError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"the LiteRT file must be whole, but got a damaged one: {error}") from None
    if text is None:
        raise ValueError(f"the LiteRT file must have been written by mnas, but got one without metadata {_ENTRY!r}")
    try:
        values: dict[str, Any] = parse_json(text)
        mean, std = values["mean"], values["std"]
        return FileMetadata(
            arch=architecture_from_dict(values["arch"]),
            input_size=values["input_size"],
            num_classes=values["num_classes"],
            labels=tuple(values["labels"]),
            normalisation=None if mean is None else Normalisation(mean=tuple(mean), std=tuple(std)),
            softmax=values["softmax"],
            crop=values.get("crop", 1.0),
            trained_on=read_trained_on(values.get("trained_on", [])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the LiteRT file's metadata {_ENTRY!r} must be those of mnas: {error!r}") from None


def metadata_entry(model: bytes, name: str) -> bytes | None:
    """The content of a metadata entry of a LiteRT file, None where there is none; a damaged file raises anything."""
    root = schema.Model.GetRootAs(model)
    for i in range(root.MetadataLength()):
        entry = root.Metadata(i)
        if entry.Name() == name.encode():
            buffer = root.Buffers(entry.Buffer())
            if buffer.DataIsNone():  # ai-edge-quantizer moves what is large behind the flatbuffer
                return model[buffer.Offset() : buffer.Offset() + buffer.Size()]
            return bytes(buffer.DataAsNumpy())
    return None


def image_side(model: bytes) -> int | None:
    """Side in pixels of the square RGB image that anybody's LiteRT file takes; None where it takes any, or no image."""
    try:
        graph = schema.Model.GetRootAs(model).Subgraphs(0)
        shape = graph.Tensors(graph.Inputs(0)).ShapeAsNumpy().tolist()
    except (AttributeError, IndexError, TypeError, ValueError, struct.error):  # no such file: the runtime will say so
        return None
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        return None
    height, width = shape[1:3] if shape[3] == 3 else shape[2:]
    return height if height == width and height > 1 else None


def append_labels(model: bytes, labels: Sequence[str]) -> bytes:
    """`model` with `labels.txt` zipped to its end, as the LiteRT metadata format has it; unchanged without labels.

    A tool that rewrites the graph (a quantizer) drops the zip: append it again.
    """
    if not labels:
        return model
    file = io.BytesIO(model)
    info = zipfile.ZipInfo(LABELS_FILE, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3  # the same bytes on every system
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:  # readers map it into memory: no compression
        archive.writestr(info, "\n".join(labels))
    return file.getvalue()


def _tflite_metadata(metadata: FileMetadata) -> bytes:
    """A ModelMetadata table; the numbers are the fields' in metadata_schema.fbs."""
    b = flatbuffers.Builder(1024)
    image = {0: b.CreateString("image"), 3: _content(b, _IMAGE_PROPERTIES, _table(b, {}, enums={0: _RGB}))}
    if metadata.normalisation is not None:
        # the format's pixels are 0 to 255; MediaPipe refuses three numbers, and takes one for all channels
        pairs = list(zip(metadata.normalisation.mean, metadata.normalisation.std, strict=True))
        numbers = 255 * np.array(pairs if len(set(pairs)) > 1 else pairs[:1])
        mean, std = numbers.astype(np.float32).T
        options = {0: b.CreateNumpyVector(mean), 1: b.CreateNumpyVector(std)}
        unit = _table(b, {1: _table(b, options)}, enums={0: _NORMALIZATION_OPTIONS})
        image[4] = _vector(b, [unit])
    name = "probabilities" if metadata.softmax else "logits"
    output = {0: b.CreateString(name), 3: _content(b, _FEATURE_PROPERTIES, _table(b, {}))}
    if metadata.labels:
        file = _table(b, {0: b.CreateString(LABELS_FILE)}, enums={2: _TENSOR_AXIS_LABELS})
        output[6] = _vector(b, [file])
    subgraph = {2: _vector(b, [_table(b, image)]), 3: _vector(b, [_table(b, output)])}
    model = {
        0: b.CreateString(f"mnas {metadata.arch.fingerprint}"),
        3: _vector(b, [_table(b, subgraph)]),
        7: b.CreateString("1.0.0"),  # of the metadata parser
    }
    b.Finish(_table(b, model), file_identifier=b"M001")
    return bytes(b.Output())


def _content(builder: flatbuffers.Builder, kind: int, properties: int) -> int:
    return _table(builder, {1: properties}, enums={0: kind})


def _table(builder: flatbuffers.Builder, offsets: Mapping[int, int], *, enums: Mapping[int, int] = {}) -> int:
    """A table of references (`offsets`) and one-byte enumerations, by field number."""
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
