"""The metadata of a LiteRT file: architecture, labels, and the normalisation of its input.

The file contains them twice. `read_metadata` reads the entry `mnas`, JSON, which survives tools that rewrite the
graph. Entry `TFLITE_METADATA`, with `labels.txt` zipped to the file's end, is the format that ML Kit, MediaPipe
and Android Studio read (mnas.tflite.official).
"""

import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from mnas import digests
from mnas.metadata import DETECTOR_KEY, ModelMetadata, metadata_from_json, require_classifier
from mnas.readers import parse_json
from mnas.tflite.content import buffer_data, graph_digest
from mnas.tflite.graph import IDENTIFIER
from mnas.tflite.official import LABELS_FILE, OFFICIAL_ENTRY, OutputTensor, official_metadata
from mnas.training_data import trained_on_json

GRAPH = "graph_digest"
"""Key of the digest of graphs and metadata, which stays valid when tools rewrite the file."""
ENTRY = "mnas"
"""Name of the entry with our metadata."""
_BEFORE = {
    "arch", "fingerprint", "input_size", "num_classes", "labels", "mean", "std", "softmax", "crop", "trained_on",
}  # fmt: skip
_DAMAGED = (AttributeError, LookupError, MemoryError, OverflowError, TypeError, ValueError, struct.error)
"""Exceptions of the generated readers on a damaged file, as they do not check offsets."""


def metadata_entries(metadata: ModelMetadata, *, seal: bool = False) -> dict[str, bytes]:
    """Return the file's metadata entries: name -> content.

    Args:
        seal: whether to include placeholders for the digests that `sealed` writes.
    """
    values = {
        "arch": metadata.arch.to_dict(),
        "fingerprint": metadata.arch.fingerprint,
        "input_size": metadata.input_size,
        "num_classes": metadata.num_classes,
        "labels": list(metadata.classes),
        "mean": None if metadata.mean is None else list(metadata.mean),
        "std": None if metadata.std is None else list(metadata.std),
        "softmax": metadata.softmax,
        "crop": metadata.crop,
    }
    if metadata.trained_on:  # without it the bytes equal those of earlier versions
        values["trained_on"] = trained_on_json(metadata.trained_on)
    if seal:
        values |= {GRAPH: digests.blank(values)}
        values |= {digests.KEY: digests.blank(values)}
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
    return {ENTRY: text.encode(), OFFICIAL_ENTRY: _tflite_metadata(metadata)}


def sealed(model: bytes) -> bytes:
    """Return `model` with the digests of its content; unchanged if its metadata have no placeholders for them."""
    values = read_values_of(model)
    if digests.KEY not in values:
        return model
    place = model.index(values[GRAPH].encode())
    model = digests.with_digits(model, place, graph_digest(model, _without_digests(values)))
    return digests.sealed(model, values[digests.KEY])


def state_of_model(model: bytes) -> digests.State:
    """Return the state of a LiteRT file that mnas wrote, which covers its graphs and metadata.

    Tools that add metadata or rewrite the flatbuffer leave it intact. Raises ValueError as `read_metadata` does.
    """
    values = read_values_of(model)
    state = digests.state_of(model, values.get(digests.KEY))
    if state == "unsealed":
        return "changed" if set(values) - _BEFORE else state
    if state == "changed":
        try:
            same = graph_digest(model, _without_digests(values)) == values.get(GRAPH)
        except _DAMAGED:
            return "changed"
        return "intact" if same else "changed"
    return state


def _without_digests(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in (GRAPH, digests.KEY)}


def read_values(path: Path, content: bytes) -> tuple[dict[str, Any], digests.State] | None:
    """Return the unchecked metadata of a file that mnas wrote, and its state; None for other authors' or damaged files.

    Raises ValueError if the metadata are not a JSON object.
    """
    if content[4:8] != IDENTIFIER:
        return None
    try:
        if metadata_entry(content, ENTRY) is None:
            return None
    except _DAMAGED:
        return None  # the runtime reports a damaged file
    return read_values_of(content), state_of_model(content)


def read_metadata(model: bytes) -> ModelMetadata:
    """Return the metadata that `write_tflite` put into `model`; `state_of_model` checks whether they have changed.

    Raises:
        ValueError: the bytes are not a LiteRT file, or mnas did not write it.
    """
    values = read_values_of(model)
    require_classifier(values)
    try:
        return metadata_from_json(values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"metadata {ENTRY!r} of the LiteRT file must be valid metadata of mnas: {error!r}") from None


def read_values_of(model: bytes) -> dict[str, Any]:
    """Return the unchecked metadata that mnas put into a LiteRT file. Raises ValueError for other files."""
    if not schema.Model.ModelBufferHasIdentifier(model, 0):
        raise ValueError("a LiteRT file must have the identifier TFL3, but got other bytes")
    try:
        text = metadata_entry(model, ENTRY)
    except _DAMAGED as error:
        raise ValueError(f"the LiteRT file must be whole, but got a damaged one: {error}") from None
    if text is None:
        raise ValueError(f"the LiteRT file must have been written by mnas, but got one without metadata {ENTRY!r}")
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ValueError(f"metadata {ENTRY!r} of the LiteRT file must be valid metadata of mnas: {error!r}") from None
    if not isinstance(values, dict):
        raise ValueError(
            f"metadata {ENTRY!r} of the LiteRT file must be a JSON object, but got {type(values).__name__}"
        )
    return values


def read_labels(model: bytes) -> tuple[str, ...]:
    """Return the names of the classes in a LiteRT file of mnas, a classifier or a detector; empty without names."""
    values = read_values_of(model)
    return tuple(values["classes"] if DETECTOR_KEY in values else values["labels"])


def metadata_entry(model: bytes, name: str) -> bytes | None:
    """Return the content of a metadata entry of a LiteRT file, or None; a damaged file may raise any of `_DAMAGED`."""
    root = schema.Model.GetRootAs(model)
    for i in range(root.MetadataLength()):
        entry = root.Metadata(i)
        if entry.Name() == name.encode():
            return buffer_data(model, root.Buffers(entry.Buffer()))
    return None


def image_side(model: bytes) -> int | None:
    """Return the side, in pixels, of a LiteRT file's square RGB input; None if it is variable or not such an image."""
    try:
        graph = schema.Model.GetRootAs(model).Subgraphs(0)
        shape = graph.Tensors(graph.Inputs(0)).ShapeAsNumpy().tolist()
    except (AttributeError, IndexError, TypeError, ValueError, struct.error):  # the runtime reports a damaged file
        return None
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        return None
    height, width = shape[1:3] if shape[3] == 3 else shape[2:]
    return height if height == width and height > 1 else None


def append_labels(model: bytes, labels: Sequence[str]) -> bytes:
    """Return `model` with `labels.txt` zipped to its end, as in the LiteRT metadata format; unchanged without labels.

    A tool that rewrites the graph (a quantizer) drops the zip, so append it again.
    """
    if not labels:
        return model
    file = io.BytesIO(model)
    info = zipfile.ZipInfo(LABELS_FILE, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3  # the same bytes on every system
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:  # readers map it into memory: no compression
        archive.writestr(info, "\n".join(labels))
    return file.getvalue()


def _tflite_metadata(metadata: ModelMetadata) -> bytes:
    moments = None if metadata.mean is None or metadata.std is None else (metadata.mean, metadata.std)
    name = "probabilities" if metadata.softmax else "logits"
    output = OutputTensor(name=name, labels="axis" if metadata.classes else None)
    return official_metadata(f"mnas {metadata.arch.fingerprint}", moments, [output])
