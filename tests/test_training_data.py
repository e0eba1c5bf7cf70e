"""The record of the training in a model file, in every format, whole and damaged."""

import json
from dataclasses import replace

import pytest
import safetensors.torch

from mnas.foreign.sidecar import sidecar
from mnas.metadata import ModelMetadata, metadata_from_json, metadata_json
from mnas.nn.network import build_network
from mnas.nn.weights import network_of_bytes, save_weights, weights_bytes
from mnas.nn.weights_info import read_weights_info
from mnas.predict.model import load_model
from mnas.tflite import writer
from mnas.tflite.metadata import read_metadata
from mnas.tflite.writer import write_tflite
from mnas.training_data import TrainingData, after_training, printable_name, read_trained_on, trained_on_json
from tests.cli.test_bad_input import complaint
from tests.old_files.old import old_onnx
from tests.predict.own_models import ARCH, CLASSES, SIZE, own_network

FIRST = TrainingData(
    name="photos of 2026", content="0123456789abcdef" * 4, images=120, seed=7, max_images_per_class=50, held_out=True
)
SECOND = TrainingData(
    name="imagenet",
    content="stat:" + "f" * 64,
    images=1_281_167,
    seed=2**63 - 1,
    max_images_per_class=0,
    held_out=False,
)
INFO = ModelMetadata(
    arch=ARCH,
    classes=CLASSES,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    input_size=SIZE,
    accuracy=0.5,
    trained_on=(FIRST, SECOND),
)
DAMAGED = {
    "no list": {},
    "no objects": [[]],
    "too many": [trained_on_json((FIRST,))[0]] * 17,
    "a field is missing": [{key: value for key, value in trained_on_json((FIRST,))[0].items() if key != "seed"}],
    "a seed that is no number": {"seed": "7"},
    "a seed that is a truth value": {"seed": True},
    "a negative seed": {"seed": -1},
    "a seed of 64 bits": {"seed": 2**63},
    "no images": {"images": 0},
    "a limit that is no integer": {"max_images_per_class": 1.5},
    "a content of other characters": {"content": "../../etc/passwd" * 2},
    "a content that is too long": {"content": "0" * 129},
    "a name with control characters": {"name": "a\x1b[31m\nfront: 99 %"},
    "a name that is too long": {"name": "a" * 201},
    "a name that is none": {"name": None},
    "held out, perhaps": {"held_out": "yes"},
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_every_format_says_it(tmp_path):
    network = own_network()
    save_weights(tmp_path / "model.safetensors", network, INFO)
    assert read_weights_info(tmp_path / "model.safetensors") == INFO
    assert network_of_bytes(weights_bytes(network, INFO))[1] == INFO
    assert metadata_from_json(json.loads(sidecar(INFO, b""))) == INFO
    content = write_tflite(network, SIZE, labels=CLASSES, mean=INFO.mean, std=INFO.std, trained_on=INFO.trained_on)
    assert read_metadata(content).trained_on == INFO.trained_on
    (tmp_path / "model.tflite").write_bytes(content)
    for name in ("model.safetensors", "model.tflite"):
        info = load_model(name).info
        assert (info.ours, info.trained_on) == (True, INFO.trained_on)


def test_files_without_a_record_have_the_bytes_that_they_had():
    bare = replace(INFO, trained_on=())
    assert "trained_on" not in metadata_json(bare)
    network = own_network()
    assert write_tflite(network, SIZE) == write_tflite(network, SIZE, trained_on=())
    assert b"trained_on" not in write_tflite(network, SIZE)


def test_what_a_later_version_adds_is_passed_over():
    [values] = trained_on_json((FIRST,))
    assert read_trained_on([values | {"hours": 3}]) == (FIRST,)


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("format_", ["safetensors", "tflite", "onnx"])
def test_damage_is_one_line(capsys, tmp_path, damage, format_, monkeypatch):
    changed = DAMAGED[damage]
    values = [trained_on_json((FIRST,))[0] | changed] if isinstance(changed, dict) and changed else changed
    if format_ == "safetensors":
        metadata = json.dumps(metadata_json(INFO) | {"trained_on": values})
        tensors = build_network(ARCH, len(CLASSES)).state_dict()
        safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", {"mnas": metadata})
    elif format_ == "tflite":
        entries = writer.metadata_entries

        def damaged(metadata, *, seal):
            whole = entries(metadata)
            text = json.dumps(json.loads(whole["mnas"]) | {"trained_on": values})
            return whole | {"mnas": text.encode()}

        monkeypatch.setattr(writer, "metadata_entries", damaged)
        (tmp_path / "model.tflite").write_bytes(write_tflite(own_network(), SIZE, labels=CLASSES))
    else:
        import onnx

        model = onnx.load(old_onnx(tmp_path))
        model.metadata_props[0].value = json.dumps(json.loads(model.metadata_props[0].value) | {"trained_on": values})
        onnx.save(model, tmp_path / "model.onnx")
    line = complaint(capsys, "predict", f"model.{format_}", "nothing.png")
    assert "trained_on" in line
    assert f"model.{format_}" in line
    assert line.isprintable()
    assert len(line) < 500


def test_names_are_made_fit_for_files_and_terminals():
    assert printable_name("sd") == "sd"
    assert printable_name("a\nb\x1b[2J\udcff\u2028") == "a?b?[2J??"
    assert printable_name("") == "?"
    for name in ("x" * 300, "\udcff" * 300, "Übung 3"):
        assert replace(FIRST, name=printable_name(name)).name == name.replace("\udcff", "?")[:200]


def test_trainings_one_after_another():
    assert after_training(FIRST, ()) == (FIRST,)
    assert after_training(FIRST, (SECOND,)) == (FIRST, SECOND)
    assert after_training(FIRST, (SECOND, FIRST)) == (FIRST, SECOND)
    assert after_training(None, (SECOND,)) == ()
    many = tuple(replace(FIRST, seed=seed) for seed in range(20))
    assert after_training(SECOND, many) == (SECOND, *many[:15])
    assert read_trained_on(trained_on_json(after_training(SECOND, many))) == (SECOND, *many[:15])


def test_other_fields_of_a_file_are_checked_too(capsys, tmp_path):
    tensors = build_network(ARCH, len(CLASSES)).state_dict()
    for field, value, rule in (
        ("classes", "cats", "classes must be a list of names, but got 'cats'"),
        ("classes", [], "classes must be a list of names"),
        ("mean", [0.5, 0.5], "mean must be a list of three numbers, but got [0.5, 0.5]"),
        ("std", [0, 0, 0], "std must be three finite numbers above 0"),
        ("input_size", "16", "input_size must be an integer from 1 to 8192, but got '16'"),
        ("accuracy", 17, "accuracy must be a number from 0 to 1, but got 17"),
        ("crop", 0, "crop must be above 0 and at most 1, but got 0"),
    ):
        metadata = json.dumps(metadata_json(INFO) | {field: value})
        safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", {"mnas": metadata})
        assert rule in complaint(capsys, "predict", "model.safetensors", "nothing.png")
