"""What was written before model files said what their models were trained on opens as it did."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from old import HERE, old_litert, old_onnx, old_run, old_training

from mnas.cli.main import run
from mnas.data.load import load_dataset
from mnas.names import resolve_weights
from mnas.nn.network import build_network
from mnas.nn.weights import save_weights
from mnas.nn.weights_info import read_weights_info
from mnas.predict.model import load_model
from mnas.study import read_run
from mnas.tflite.metadata import read_metadata
from tests.cli.test_bad_input import make_images

OPENED = {"model.safetensors": old_training, "model.tflite": old_litert, "model.onnx": old_onnx}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", OPENED)
def test_model_files_open(tmp_path, name):
    info = load_model(OPENED[name](tmp_path)).info
    assert (info.classes, info.input_size, info.ours, info.trained_on) == (("a", "b"), 8, True, ())
    assert info.mean == (0.499952, 0.496892, 0.498891)
    assert info.arch is not None
    assert info.arch.fingerprint == "6017cb1e72d8d437"


def test_a_training_predicts_and_is_exported(tmp_path, capsys):
    old_training(tmp_path)
    make_images(tmp_path / "data", ("a", "b"), size=8)
    assert run(["predict", ".", "data/a/0.png", "--json"]) == 0
    assert {p["label"] for p in json.loads(capsys.readouterr().out)["predictions"]} == {"a", "b"}
    assert run(["show", "model.safetensors"]) == 0
    assert "sepconv" in capsys.readouterr().out
    assert run(["export", ".", "--to", "litert", "--speed-s", "0"]) == 0
    exported = read_metadata((tmp_path / "model.tflite").read_bytes())
    assert exported.trained_on == ()
    # the text is unchanged, except for what a later version adds
    assert json.loads((HERE / "training.tflite.json").read_text())["fingerprint"] == exported.arch.fingerprint


@pytest.mark.parametrize("name", OPENED)
def test_scoring_draws_as_it_did_and_warns(tmp_path, capsys, name):
    OPENED[name](tmp_path)
    data = make_images(tmp_path / "data", ("a", "b"), size=8)

    def scored(*options: str) -> dict:
        assert run(["eval", name, "--data", "data", *options, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    found = scored()
    assert (found["part"], found["seed"], found["images"], found["data_of_training"]) == ("val", 0, 8, None)
    assert "the model file does not record its training data, so val is drawn with seed 0" in found["notes"][0]
    expected = load_dataset("data", input_size=8, seed=3)
    found = scored("--seed", "3")
    assert (found["seed"], found["notes"]) == (3, [])
    assert np.sum(found["confusion"], 1).tolist() == np.bincount(expected.val.labels).tolist()
    assert found["top1"] == np.mean(
        load_model(name).run(np.array(expected.val.images)).argmax(1) == expected.val.labels
    )
    shutil.rmtree(data)
    make_images(data / "train", ("a", "b"), size=8)
    make_images(data / "test", ("a", "b"), count=3, size=8)
    found = scored()
    assert (found["part"], found["images"], found["notes"]) == ("test", 6, [])


def test_export_warns_too(tmp_path, capsys):
    old_training(tmp_path)
    make_images(tmp_path / "data", ("a", "b"), count=60, size=8)
    assert run(["export", ".", "--to", "litert", "--data", "data", "--speed-s", "0"]) == 0
    printed = capsys.readouterr().out
    assert "24 validation images of data" in printed
    assert "the model file does not record its training data, so val is drawn with seed 0" in printed


def test_a_search_opens(tmp_path, capsys):
    path = old_run(tmp_path / "old")
    snapshot = read_run(path)
    assert [t.accuracy for t in snapshot.trials] == [0.1, 0.1]
    assert [t.number for t in snapshot.front] == [1]
    assert read_weights_info(path / "models" / "1.safetensors").trained_on == ()
    assert run(["show", "old#1"]) == 0
    assert "mbconv" in capsys.readouterr().out
    assert run(["runs", "."]) == 0
    assert "finished" in capsys.readouterr().out
    assert run(["report", "old"]) == 0
    assert run(["eval", "old#1", "--data", "digits", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (scored["part"], scored["images"], scored["notes"]) == ("test", 359, [])
    assert (path / "report.html").stat().st_size > 100_000
    assert run(["export", "old#1", "--to", "litert", "--speed-s", "0"]) == 0
    assert read_metadata((tmp_path / "old-1.tflite").read_bytes()).classes == tuple("0123456789")


def test_a_search_goes_on(tmp_path, capsys):
    path = old_run(tmp_path / "old")
    shutil.copy(HERE / "space.toml", tmp_path / "tiny.toml")
    assert run(
        ["search", "--data", "digits", "--max-images-per-class", "20", "--space", "tiny.toml", "--input-size", "12",
         "--epochs", "1", "--fewest-steps", "1", "--trials", "2", "--candidates-per-update", "2", "--workers", "1",
         "--latency-budget-s", "0.1", "--seed", "5", "--controller", "random", "--run", "old"]
    ) == 0, capsys.readouterr()  # fmt: skip
    assert "all 2 candidates are finished" in capsys.readouterr().out
    assert [t.accuracy for t in read_run(path).trials] == [0.1, 0.1]
    assert (path / "front" / "1" / "model.tflite").is_file()


def test_weights_of_another_trial_are_refused(tmp_path, capsys):
    path = old_run(tmp_path / "old")
    trials = read_run(path).trials
    assert trials[0].fingerprint != trials[1].fingerprint
    arch = trials[0].arch
    own, other = path / "models" / "0.safetensors", path / "models" / "1.safetensors"
    info = read_weights_info(other)
    save_weights(own, build_network(arch, 10), replace(info, arch=arch))
    assert resolve_weights("old#0").samefile(own)
    content = own.read_bytes()
    own.write_bytes(other.read_bytes())
    other.write_bytes(content)
    for trial in (0, 1):
        assert run(["eval", f"old#{trial}", "--data", "digits"]) == 2
        error = capsys.readouterr().err
        assert f"models/{trial}.safetensors' must contain weights of architecture" in error
        assert "another network's file replaced it" in error


def test_a_file_without_a_digest_has_one_line(tmp_path):
    old_training(tmp_path)
    make_images(tmp_path / "data", ("a", "b"), size=8)
    command = [sys.executable, "-m", "mnas.cli.main", "predict", "model.safetensors", "data/a/0.png"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stderr == (
        "'model.safetensors' has no digest because an earlier version of mnas wrote it, so changes to it go unnoticed\n"
    )
