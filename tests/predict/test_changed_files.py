"""A changed file of mnas is rejected by name in every format; additions by other tools are no change."""

import io
import json
import logging
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from foreign_models import images
from own_models import ARCH, CLASSES, INFO, SIZE, own_network, save_own, save_own_litert
from PIL import Image

from mnas import digests
from mnas.cli.main import run
from mnas.digests import ChangedFileError
from mnas.export.executorch import executorch_fp32
from mnas.export.litert import litert_int8
from mnas.export.onnx import onnx_fp32
from mnas.foreign.sidecar import sidecar
from mnas.nn.weights import load_weights, network_of_bytes, save_weights, weights_bytes
from mnas.nn.weights_info import read_weights_info
from mnas.predict.model import load_model
from mnas.tflite.metadata import read_metadata, state_of_model
from mnas.tflite.writer import graph_bytes, write_tflite
from tests.tflite.test_metadata import packed

FLIPS = 25


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The network in all formats."""
    folder = tmp_path_factory.mktemp("whole")
    save_own(folder)
    save_own_litert(folder)
    network = own_network()
    (folder / "model.onnx").write_bytes(onnx_fp32(network, INFO))
    program = executorch_fp32(network, INFO)
    (folder / "model.pte").write_bytes(program)
    (folder / "model.pte.json").write_text(sidecar(INFO, program))
    return folder


@pytest.fixture
def here(files, tmp_path, monkeypatch) -> Path:
    """The current folder, with a copy of the files that a test may change."""
    monkeypatch.chdir(tmp_path)
    for file in files.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def flipped(content: bytes, seed: int) -> Iterator[tuple[int, bytes]]:
    """Yield positions, drawn from all of `content`, and the content with one bit of that byte flipped."""
    draw = random.Random(seed)
    for part in range(FLIPS):
        place = draw.randrange(part * len(content) // FLIPS, (part + 1) * len(content) // FLIPS)
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        yield place, bytes(changed)


def test_every_flipped_bit_of_weights_is_refused(here):
    path = here / "model.safetensors"
    for place, content in flipped(path.read_bytes(), 0):
        path.write_bytes(content)
        for read in (load_weights, read_weights_info, load_model):
            with pytest.raises(ValueError, match=r"model\.safetensors"):
                read(path)
        with pytest.raises(ValueError, match=r"weights must be a [.]safetensors file written by mnas"):
            network_of_bytes(content)
        if place > 20_000:  # in the tensors, which the header does not describe
            with pytest.raises(ChangedFileError, match="was changed after mnas wrote it"):
                load_weights(path)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx", ".pte", ".pte.json"])
def test_a_flipped_bit_of_an_export_is_refused_or_changes_no_answer(here, suffix):
    """A .tflite file also has bytes that mnas does not read: between tables, and metadata for other tools."""
    path, model = here / f"model{suffix}", here / f"model{suffix.removesuffix('.json')}"
    whole = path.read_bytes()
    pixels = images(4, SIZE)
    expected = load_model(model).run(pixels)
    refused = []
    for _, content in flipped(whole, 1):
        path.write_bytes(content)
        try:
            opened = load_model(model)
        except ValueError as error:
            refused.append(str(error))
            continue
        with opened:
            np.testing.assert_array_equal(opened.run(pixels), expected)
    assert len(refused) >= {".tflite": 15, ".onnx": 20}.get(suffix, FLIPS)
    assert all(model.name in line and "\n" not in line for line in refused)


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx", "model.pte"])
def test_a_changed_export_needs_a_word(here, name, capsys, caplog):
    path = here / name
    original = path.read_bytes()
    if name == "model.pte":
        text = json.loads((here / "model.pte.json").read_text())
        (here / "model.pte.json").write_text(json.dumps(text | {"crop": 0.5}))
    elif name == "model.onnx":
        model = onnx.load_from_string(original)
        model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
        path.write_bytes(model.SerializeToString())
    else:
        model = schema.ModelT.InitFromPackedBuf(original)
        largest = max(model.buffers, key=lambda buffer: 0 if buffer.data is None else len(buffer.data))
        largest.data = np.zeros_like(largest.data)
        path.write_bytes(packed(model))
    with pytest.raises(ChangedFileError, match=rf"{name}.* was changed after mnas wrote it: .* --allow-changed"):
        load_model(path)
    with load_model(path, allow_changed=True) as model:
        assert model.run(images(1, SIZE)).shape == (1, len(CLASSES))
    images_folder = here / "images"
    images_folder.mkdir()
    Image.fromarray(images(1, SIZE)[0]).save(images_folder / "a.png")
    assert run(["predict", name, "images"]) == 2
    assert f"'{name}' was changed after mnas wrote it" in capsys.readouterr().err
    assert run(["predict", name, "images", "--allow-changed"]) == 0
    assert f"'{name}' was changed after mnas wrote it" in caplog.text
    assert run(["latency", name, "--budget-s", "0.1"]) == 2
    assert f"'{name}' was changed after mnas wrote it" in capsys.readouterr().err


def test_changed_weights_have_no_way_round(here):
    path = here / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ChangedFileError, match="restore it from an intact copy, or train it again"):
        load_model(path, allow_changed=True)
    with pytest.raises(ChangedFileError, match="was changed"):
        load_model(ARCH, weights=str(path), name="mine")


def test_metadata_of_other_tools_are_no_change(here, caplog):
    path = here / "model.tflite"
    expected = load_model(path).run(images(2, SIZE))
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    model.metadata.append(schema.MetadataT(name="theirs", buffer=len(model.buffers)))
    model.buffers.append(schema.BufferT(data=np.frombuffer(b"somebody's", np.uint8)))
    model.description = "changed"
    file = io.BytesIO(packed(model))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("notes.txt", "theirs")
    path.write_bytes(file.getvalue())
    np.testing.assert_array_equal(load_model(path).run(images(2, SIZE)), expected)
    model = onnx.load(here / "model.onnx")
    entry = model.metadata_props.add()
    entry.key, entry.value = "author", "somebody"
    model.doc_string = "theirs"
    onnx.save(model, here / "model.onnx")
    assert load_model(here / "model.onnx").info.classes == CLASSES
    assert caplog.text == ""


def test_a_number_in_the_metadata_counts(here):
    path = here / "model.tflite"
    path.write_bytes(path.read_bytes().replace(b'"crop":0.875', b'"crop":0.873'))
    assert state_of_model(path.read_bytes()) == "changed"
    path = here / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b'"crop": 0.875', b'"crop": 0.873'))
    with pytest.raises(ChangedFileError, match="was changed"):
        load_model(path)


def test_a_digest_that_was_cut_out_is_a_change(here):
    for path, before in ((here / "model.tflite", b'"digest":'), (here / "model.onnx", b'"digest":')):
        path.write_bytes(path.read_bytes().replace(before, b'"digesT":'))
        with pytest.raises(ChangedFileError, match="was changed"):
            load_model(path)


@pytest.mark.parametrize("write", ["weights", "litert", "onnx"])
def test_the_same_network_is_the_same_bytes(write):
    writers: dict[str, Callable[[], bytes]] = {
        "weights": lambda: weights_bytes(own_network(), INFO),
        "litert": lambda: write_tflite(own_network(), SIZE, labels=CLASSES),
        "onnx": lambda: onnx_fp32(own_network(), INFO),
    }
    assert writers[write]() == writers[write]()


def test_a_quantised_file_has_its_own_digest(here):
    whole = (here / "model.tflite").read_bytes()
    pixels = np.random.default_rng(0).standard_normal((8, SIZE, SIZE, 3), np.float32)
    quantised = litert_int8(whole, pixels)
    assert state_of_model(quantised) == "intact"
    assert read_metadata(quantised) == read_metadata(whole)


def test_what_is_measured_in_a_search_carries_none():
    """Its bytes are the keys of cached latencies."""
    assert b"digest" not in graph_bytes(ARCH, SIZE, 4)
    assert b"digest" not in weights_bytes(own_network(), INFO, seal=False)


def test_weights_without_a_digest_open_with_one_line(tmp_path, caplog):
    path = tmp_path / "old.safetensors"
    path.write_bytes(weights_bytes(own_network(), INFO, seal=False))
    digests.notice_unsealed.cache_clear()
    with caplog.at_level(logging.WARNING):
        read_weights_info(path)
        load_weights(path)
        load_model(path)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{str(path)!r} has no digest because an earlier version of mnas wrote it, so changes to it go unnoticed"
    )


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, own_network(), INFO)
    assert read_weights_info(path, ARCH.fingerprint) == INFO
    other = "0123456789abcdef"
    line = rf"{path.name}' must contain weights of architecture {other}, but contains those of {ARCH.fingerprint}"
    with pytest.raises(ChangedFileError, match=line):
        load_weights(path, fingerprint=other)
