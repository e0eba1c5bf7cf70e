import dataclasses
import io
import math
import zipfile
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types as number
from flatbuffers.table import Table

from mnas.arch import Arch
from mnas.block import Block
from mnas.metadata import ModelMetadata
from mnas.nn.network import build_network
from mnas.tflite.metadata import append_labels, read_metadata
from mnas.tflite.runtime import run_tflite
from mnas.tflite.writer import graph_bytes, write_tflite

ARCH = Arch(
    blocks=(Block(op="sepconv", kernel=5, stride=2, filters=8, se_ratio=0.25, skip="pool"),),
    stem_filters=4,
    head_filters=8,
    activation="relu6",
    bn_epsilon=1e-5,
)
LABELS = ("tabby cat", "Käfer", "鶴", "crane", "crane")  # ImageNet also has a name twice
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def model(**options: Any) -> bytes:
    return write_tflite(build_network(ARCH, 5), 16, **options)


def test_round_trip() -> None:
    assert read_metadata(model(labels=LABELS, **IMAGENET, softmax=True)) == ModelMetadata(
        arch=ARCH, input_size=16, classes=LABELS, **IMAGENET, softmax=True
    )


def test_what_is_not_recorded_stays_unknown() -> None:
    for plain in (model(), graph_bytes(ARCH, 16, 5)):
        assert read_metadata(plain) == ModelMetadata(arch=ARCH, input_size=16, unnamed_classes=5)
        assert not zipfile.is_zipfile(io.BytesIO(plain))


def test_labels_are_a_file_zipped_to_the_end() -> None:
    with zipfile.ZipFile(io.BytesIO(model(labels=LABELS))) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED
        assert archive.read("labels.txt").decode().split("\n") == list(LABELS)


def test_labels_do_not_touch_what_the_graph_computes() -> None:
    network = build_network(ARCH, 5).eval()
    images = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)
    plain, labelled = write_tflite(network, 16), write_tflite(network, 16, labels=LABELS, **IMAGENET)
    assert len(labelled) > len(plain)
    np.testing.assert_array_equal(run_tflite(plain, images), run_tflite(labelled, images))


def test_the_official_format_reads_as_written() -> None:
    """The test reads the fields by their numbers in metadata_schema.fbs of tensorflow/tflite-support."""
    file = model(labels=LABELS, **IMAGENET)
    metadata = _official(file)
    assert _string(metadata, 0) == f"mnas {ARCH.fingerprint}"
    assert _string(metadata, 7) == "1.0.0"
    (subgraph,) = _tables(metadata, 3)
    (image,), (logits,) = _tables(subgraph, 2), _tables(subgraph, 3)

    assert _string(image, 0) == "image"
    content = _table(image, 3)
    assert _byte(content, 0) == 2  # ImageProperties
    assert _byte(_table(content, 1), 0) == 1  # RGB
    (unit,) = _tables(image, 4)
    assert _byte(unit, 0) == 1  # NormalizationOptions
    options = _table(unit, 1)
    # on pixels of 0 to 255
    np.testing.assert_allclose(_floats(options, 0), np.float32([123.675, 116.28, 103.53]), rtol=1e-6)
    np.testing.assert_allclose(_floats(options, 1), np.float32([58.395, 57.12, 57.375]), rtol=1e-6)

    assert _string(logits, 0) == "logits"
    assert _byte(_table(logits, 3), 0) == 1  # FeatureProperties
    (labels,) = _tables(logits, 6)
    assert _string(labels, 0) == "labels.txt"
    assert _byte(labels, 2) == 2  # TENSOR_AXIS_LABELS


def test_one_normalisation_for_all_channels_is_one_number() -> None:
    """MediaPipe accepts no other form (tried: it then gives our labels and LiteRT's probabilities)."""
    file = model(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    (subgraph,) = _tables(_official(file), 3)
    (image,) = _tables(subgraph, 2)
    options = _table(_tables(image, 4)[0], 1)
    assert (list(_floats(options, 0)), list(_floats(options, 1))) == ([127.5], [63.75])


def _official(file: bytes) -> Table:
    """Return the root table of TFLITE_METADATA."""
    root = schema.ModelT.InitFromPackedBuf(file)
    entry = next(m for m in root.metadata if m.name == b"TFLITE_METADATA")
    data = bytes(root.buffers[entry.buffer].data)
    assert flatbuffers.util.BufferHasIdentifier(data, 0, b"M001")
    return Table(data, flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0))


def _field(table: Table, number_: int) -> int:
    offset = table.Offset(4 + 2 * number_)
    assert offset, f"field {number_} is absent"
    return int(offset)


def _string(table: Table, field: int) -> str:
    return bytes(table.String(table.Pos + _field(table, field))).decode()


def _byte(table: Table, field: int) -> int:
    return int(table.Get(number.Uint8Flags, table.Pos + _field(table, field)))


def _table(table: Table, field: int) -> Table:
    return Table(table.Bytes, table.Indirect(table.Pos + _field(table, field)))


def _tables(table: Table, field: int) -> Sequence[Table]:
    offset = _field(table, field)
    start = table.Vector(offset)
    return [Table(table.Bytes, table.Indirect(start + 4 * i)) for i in range(table.VectorLen(offset))]


def _floats(table: Table, field: int) -> np.ndarray:
    return np.asarray(table.GetVectorAsNumpy(number.Float32Flags, _field(table, field)))


def packed(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_metadata_survive_a_rewritten_graph() -> None:
    """A tool unpacks and packs the file: the zip is lost, and can be appended again."""
    file = model(labels=LABELS, **IMAGENET)
    rewritten = packed(schema.ModelT.InitFromPackedBuf(file))
    assert read_metadata(rewritten) == read_metadata(file)
    assert not zipfile.is_zipfile(io.BytesIO(rewritten))
    assert zipfile.is_zipfile(io.BytesIO(append_labels(rewritten, read_metadata(rewritten).classes)))


def test_metadata_behind_the_flatbuffer() -> None:
    """ai-edge-quantizer puts them there, with an offset and a size instead of data."""
    file = model(labels=LABELS, **IMAGENET)
    root = schema.ModelT.InitFromPackedBuf(file)
    buffer = root.buffers[next(m for m in root.metadata if m.name == b"mnas").buffer]
    text = bytes(buffer.data)
    buffer.data, buffer.size, buffer.offset = None, len(text), 1
    buffer.offset = len(packed(root))
    assert read_metadata(packed(root) + text) == read_metadata(file)
    buffer.offset += 1
    with pytest.raises(ValueError, match="must be valid metadata of mnas"):
        read_metadata(packed(root) + text)


# Bad inputs


@pytest.mark.parametrize("labels", [("a",), tuple("abcdef"), ("a", "b", "c", "d", ""), ("a", "b", "c", "d", "e\nf")])
def test_bad_labels(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="label"):
        model(labels=labels)


@pytest.mark.parametrize("std", [(0.0, 1.0, 1.0), (1.0, 1.0), (math.nan, 1.0, 1.0), (1.0, 1.0, math.inf)])
def test_bad_normalisation(std: Any) -> None:
    with pytest.raises(ValueError, match="std must be three finite numbers above 0, one per channel, but got"):
        ModelMetadata(arch=ARCH, input_size=16, unnamed_classes=5, mean=(0.5, 0.5, 0.5), std=std)
    with pytest.raises(ValueError, match="mean must be three finite numbers, one per channel"):
        ModelMetadata(arch=ARCH, input_size=16, unnamed_classes=5, mean=(0.5, math.inf, 0.5), std=(1, 1, 1))


def test_bad_files() -> None:
    with pytest.raises(ValueError, match="identifier TFL3"):
        read_metadata(b"not a model at all")
    with pytest.raises(ValueError, match="identifier TFL3"):
        read_metadata(b"")
    whole = model()
    for length in (8, 12, 40):
        with pytest.raises(ValueError, match="whole"):
            read_metadata(whole[:length])
    strange = schema.ModelT.InitFromPackedBuf(whole)
    strange.metadata = None
    with pytest.raises(ValueError, match="must have been written by mnas"):
        read_metadata(packed(strange))


def test_fields_must_fit_together() -> None:
    good = ModelMetadata(arch=ARCH, input_size=16, unnamed_classes=5)
    with pytest.raises(ValueError, match="input_size must be at least"):
        dataclasses.replace(good, input_size=3)
    with pytest.raises(ValueError, match="either class names or a number of unnamed classes"):
        dataclasses.replace(good, unnamed_classes=0)
