"""The command `mnas export`."""

import importlib.util
import json
import re
import sys

import pytest

from mnas.atomic import claimed
from mnas.cli.main import run
from mnas.nn.weights import save_weights
from mnas.study import read_run
from mnas.tflite.metadata import read_metadata
from tests.cli.test_bad_input import SEARCH, complaint
from tests.export.networks import as_trained, digits_network, network_of

QUICK = ("--speed-s", "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a training, with a network that has learnt the digits."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        network, info = digits_network()
        (folder / "trained").mkdir()
        save_weights(folder / "trained" / "model.safetensors", network, info)
        yield folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_int8_of_a_training(capsys, folder):
    command = ["export", "trained", "--to", "litert", "--int8", "--data", "digits", "--calibration-images", "60"]
    assert run([*command, "--speed-s", "0.01"]) == 0
    printed = capsys.readouterr().out
    assert "passed" in printed
    assert "60 training images of digits" in printed
    assert "validation images of digits" in printed
    file = folder / "trained" / "model.int8.tflite"
    assert read_metadata(file.read_bytes()).classes == tuple("0123456789")
    report = json.loads((folder / "trained" / "model.int8.tflite.gate.json").read_text())
    assert report["kind"] == "int8"
    assert report["comparison"]["agreement"] > 0.97
    assert report["comparison"]["torch_accuracy"] > 0.85
    assert report["speed"]["latency_ms"] > 0
    line = complaint(capsys, *command)
    assert "model.int8.tflite' exists" in line
    assert "--overwrite" in line


def test_data_that_is_missing_can_be_downloaded(capsys, tmp_path):
    command = ["export", "trained", "--to", "litert", "--data", "cifar10", "--data-dir", tmp_path]
    assert "--download" in complaint(capsys, *command)
    assert run(["export", "--help-all"]) == 0
    assert "--download" in capsys.readouterr().out  # as the message advises


def test_several_targets_into_a_folder(capsys, folder):
    (folder / "out").mkdir()
    assert run(["export", "trained/model.safetensors", "--to", "litert,onnx", "--out", "out", *QUICK]) == 0
    assert "scikit-learn's two sample photographs" in capsys.readouterr().out
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "model.onnx", "model.onnx.gate.json", "model.tflite", "model.tflite.gate.json",
    ]  # fmt: skip


def test_past_the_tolerance_it_fails_and_is_kept_aside(capsys, folder):
    out = folder / "half.tflite"
    out.write_bytes(b"in use")
    code = run(
        ["export", "trained", "--to", "litert", "--fp16", "--max-difference", "1e-9", "--out", "half.tflite",
         "--overwrite", *QUICK]
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 2
    [line] = [
        x for x in printed.err.strip().splitlines() if not x.startswith("INFO: ")
    ]  # the fastest kernels of LiteRT
    assert "of the largest output, but at most 1e-09 is allowed: quarantined as 'half.failed.tflite'" in line
    assert "FAILED" in printed.out
    assert out.read_bytes() == b"in use"
    assert (folder / "half.failed.tflite").is_file()


def test_a_trial_of_a_search_is_written_here(capsys, folder):
    brief = ("--trials", "1", "--candidates-per-update", "1", "--latency-budget-s", "0.1", "--workers", "1")
    assert run([*SEARCH, *brief, "--run", "runs/found"]) == 0
    best = read_run(folder / "runs" / "found").front[0]
    assert run(["export", f"runs/found#{best.number}", "--to", "litert", "--data", "digits", *QUICK]) == 0
    assert read_metadata((folder / f"found-{best.number}.tflite").read_bytes()).input_size == 8


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--to", "litert", "--min-agreement", "99"], "--min-agreement must be a share from 0 to 1"),
        (["--to", "litert", "--max-accuracy-loss", "2"], "--max-accuracy-loss must be a share from 0 to 1"),
        (["--to", "litert", "--int8"], "--int8 needs --data for images to calibrate on, but got none"),
        (["--to", "coreml"], "--to must be one or more of litert, onnx, executorch, but got 'coreml'"),
        (
            ["--to", "onnx", "--int8", "--data", "digits"],
            "--int8 must be used with --to litert alone, but got --to onnx",
        ),
        (["--to", "litert,executorch", "--fp16"], "--fp16 must be used with --to litert alone"),
        (["--to", "litert", "--fp16", "--int8", "--data", "digits"], "--int8 and --fp16 must not be used together"),
        (["--to", "litert", "--integer-io"], "--integer-io must be used with --int8"),
        (["--to", "litert,onnx", "--out", "a.tflite"], "--out must be an existing folder for several files"),
        (["--to", "litert", "--out", "a.onnx"], "--out must end in .tflite"),
        (["--to", "litert", "--out", "nowhere/a.tflite"], "--out must be in an existing folder"),
        (["--to", "litert", "--data", "nowhere"], "--data must be a folder or one of digits"),
        (["--to", "litert", "--images", "-1"], "--images must be 0 or more, but got -1"),
        (["--to", "litert", "--min-agreement", "nan"], "--min-agreement must be 0 or more, but got nan"),
    ],
)
def test_bad_options(capsys, folder, options, expected):
    before = sorted(folder.rglob("*.tflite"))
    assert expected in complaint(capsys, "export", "trained", *options)
    assert sorted(folder.rglob("*.tflite")) == before


def test_bad_models(capsys, folder):
    assert "a model must have trained weights" in complaint(capsys, "export", "mnasnet-a1", "--to", "litert")
    assert "mnas: 'nowhere' does not exist; a model must be a file, " in complaint(
        capsys, "export", "nowhere", "--to", "litert"
    )
    (folder / "other.tflite").write_bytes(b"TFL3")
    assert ".safetensors" in complaint(capsys, "export", "other.tflite", "--to", "litert")
    network, info = network_of("same")
    save_weights(folder / "cats.safetensors", network, info)
    line = complaint(capsys, "export", "cats.safetensors", "--to", "litert", "--data", "digits")
    assert "must have at most the model's 5 classes, but got 10" in line
    broken = as_trained(info.arch, 5)
    broken.head.conv.weight.data[0] = float("nan")
    save_weights(folder / "broken.safetensors", broken, info)
    assert "weights must be finite" in complaint(capsys, "export", "broken.safetensors", "--to", "litert")


@pytest.mark.parametrize(
    ("package", "options", "extra"),
    [
        ("onnxscript", ["--to", "onnx"], "mnas[onnx]"),
        ("executorch", ["--to", "executorch"], "mnas[executorch]"),
        ("ai_edge_quantizer", ["--to", "litert", "--fp16", "--out", "x.tflite"], "mnas[quantize]"),
    ],
)
def test_a_missing_extra_is_named(capsys, monkeypatch, package, options, extra):
    # as if it were not installed; a package that is half imported would stay so for the tests that follow
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert extra in complaint(capsys, "export", "trained", *options, *QUICK)


def test_one_format_that_fails_leaves_the_others(capsys, folder, tmp_path, monkeypatch):
    def broken(network, info):
        raise RuntimeError("the exporter\nbroke")

    monkeypatch.setattr("mnas.export.onnx.onnx_fp32", broken)
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, find=importlib.util.find_spec: None if name == "executorch" else find(name),
    )
    line = complaint(capsys, "export", "trained", "--to", "onnx,executorch,litert", "--out", tmp_path, *QUICK)
    assert "model.onnx was not written: the exporter broke" in line
    assert "model.pte was not written: writing .pte files needs executorch; pip install 'mnas[executorch]'" in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.tflite", "model.tflite.gate.json"]


def test_a_missing_package_is_told_before_any_work(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("mnas.export.model.load_weights", lambda path: pytest.fail("work was begun"))
    line = complaint(capsys, "export", "trained", "--to", "onnx", "--out", tmp_path)
    assert line == "mnas: writing .onnx files needs onnx and onnxscript; pip install 'mnas[onnx]'"


def test_two_exports_to_one_file(capsys, tmp_path):
    out = tmp_path / "model.tflite"
    with claimed([out], "--out"):
        line = complaint(capsys, "export", "trained", "--to", "litert", "--out", out, *QUICK)
    assert "another process is writing the file" in line
    assert not out.exists()


def test_the_majority_share_stands_beside_the_accuracy(capsys, tmp_path):
    command = ["export", "trained", "--to", "litert", "--data", "digits", "--out", str(tmp_path), *QUICK]
    assert run(command) == 0
    report = json.loads((tmp_path / "model.tflite.gate.json").read_text())
    assert 0.1 <= report["comparison"]["majority_share"] < 0.2
    share = f"{report['comparison']['majority_share']:.2%}"
    assert re.search(rf"majority share +{share}", capsys.readouterr().out)
