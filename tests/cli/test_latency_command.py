"""`mnas latency` on the command line."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from foreign_models import onnx_model

from mnas.cli.main import run
from mnas.nn.cost import cost
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch

QUICK = ("--input-size", "32", "--classes", "10", "--budget-s", "0.05")


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    for home in ("CACHE", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{home}_HOME", str(tmp_path / home.lower()))


def test_a_table_with_names_files_and_costs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = Path("own.tflite")
    file.write_bytes(graph_bytes(named_arch("mnasnet-small@0.35"), 32, 10))
    assert run(["latency", "mnasnet-small", str(file), *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "0.76M" in printed  # mnasnet-small's params with 10 classes
    assert "own.tflite" in "".join(printed.split())
    assert "ratio: multiple of the latency of mobilenetv2 at 32 px" in printed


def test_json_lines(capsys):
    assert run(["latency", "mnasnet-small/s8", "r1_k3_s22_e1_o8", "--json", *QUICK]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["name"], second["name"]) == ("mnasnet-small/s8", "r1_k3_s22_e1_o8")
    assert first["calibration"]["reference"] == "mobilenetv2/s8"
    assert first["low_ms"] <= first["latency_ms"] <= first["high_ms"]
    whole = cost(named_arch("mnasnet-small/s8"), 32, 10)
    assert (first["params"], first["macs"]) == (whole.params, whole.macs)
    assert first["size_bytes"] == len(graph_bytes(named_arch("mnasnet-small/s8"), 32, 10))
    assert second["latency_ms"] < first["latency_ms"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name at least one architecture or model file"),
        (["nothing.tflite"], "model file 'nothing.tflite' cannot be read: No such file or directory"),
        (["mnasnet-a7"], "mnasnet-a1"),
        (["mnasnet-a1", "--input-size", "8"], "--input-size must be at least the output stride 32, but got 8"),
        (
            ["mnasnet-a1", "--runtime", "tflite"],
            "--runtime must be one or more of litert, litert-builtin, onnxruntime, executorch,",
        ),
        (["mnasnet-a1", "--runtime", "litert,litert"], "--runtime must name each runtime once"),
        (["a.onnx", "--runtime", "litert"], "--runtime must be onnxruntime for 'a.onnx', but got litert"),
        (
            ["a.tflite", "--runtime", "torch"],
            "--runtime must be litert or litert-builtin for 'a.tflite', but got torch",
        ),
        (["mnasnet-a1", "--device", "pixel"], "--device must be one of host, but got 'pixel'"),
        (["mnasnet-a1", "--threads", "0"], "--threads must be an integer from 1 to 1024"),
        (
            ["mnasnet-a1", "--int8", "--runtime", "torch"],
            "--int8 requires one of the runtimes litert, litert-builtin, onnx",
        ),
        (["mnasnet-a1", "--budget-s", "0"], "--budget-s must be finite and greater than 0, but got 0"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(capsys, arguments, words):
    assert run(["latency", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert words in lines[-1]
    assert lines[-1].startswith("mnas: ")


def test_a_file_that_is_not_a_model_gets_one_line(capsys, tmp_path):
    file = tmp_path / "text.tflite"
    file.write_text("hello, this is text")
    assert run(["latency", str(file)]) == 2
    assert "a model must be a LiteRT file" in capsys.readouterr().err


@pytest.mark.slow  # measures as many models again
def test_several_runtimes_share_one_reference_and_cached_latencies_are_not_measured_again(capsys, tmp_path):
    file = tmp_path / "means.onnx"
    file.write_bytes(onnx_model())
    arguments = ["latency", "mnasnet-small@0.5", str(file), "--json", *QUICK]
    assert run(arguments) == 0
    ours, theirs = map(json.loads, capsys.readouterr().out.splitlines())
    assert (ours["runtime"], theirs["runtime"]) == ("litert", "onnxruntime")
    assert ours["calibration"] == theirs["calibration"]
    assert theirs["calibration"]["runtime"] == "litert"
    assert (theirs["params"], theirs["macs"], theirs["size_bytes"]) == (None, None, len(onnx_model()))
    assert run(arguments) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["source"] for row in again] == ["cached", "cached"]
    assert again[0]["raw_median_ms"] == ours["raw_median_ms"]
    assert run([*arguments, "--fresh"]) == 0
    fresh = capsys.readouterr()
    assert [json.loads(line)["source"] for line in fresh.out.splitlines()] == ["measured", "measured"]
    assert len(re.findall(r"re-measured \S+: ratio ", fresh.err)) == 2


@pytest.mark.slow  # four runtimes are imported
def test_one_table_of_runtimes_in_int8_with_threads_and_batch(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    options = ("--runtime", "litert,litert-builtin", "--int8", "--threads", "2", "--batch", "2")
    assert run(["latency", "mnasnet-small@0.5", *options, *QUICK]) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.split()[:1] == ["mnasnet-small@0.5"]]
    assert [row[1] for row in rows] == ["litert", "litert-builtin"]
    assert "threads: 2, batches of 2 images, not pinned" in printed
    assert "architectures run in int8" in printed


def test_a_model_that_cannot_be_run_leaves_the_others_in_the_table(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    file = tmp_path / "text.tflite"
    file.write_text("hello, this is text")
    assert run(["latency", "mnasnet-small@0.5", str(file), *QUICK]) == 2
    said = capsys.readouterr()
    assert "mnasnet-small@0.5" in said.out
    assert "text.tflite': a model must be a LiteRT file" in said.err.splitlines()[-1]


def test_a_missing_runtime_names_its_extra(capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else found(name, *a)
    )
    assert run(["latency", "mnasnet-a1", "--runtime", "litert,onnxruntime"]) == 2
    assert "runtime onnxruntime needs onnxruntime: pip install 'mnas[onnx]'" in capsys.readouterr().err


def test_latencies_measured_under_another_name_of_the_device_are_cached(capsys, tmp_path):
    file = tmp_path / "devices.toml"
    file.write_text('[desk]\nkind = "host"\n')
    arguments = ["latency", "mnasnet-small@0.5", "--json", *QUICK, "--devices", str(file), "--device"]
    assert run([*arguments, "desk"]) == 0
    assert run([*arguments, "host"]) == 0
    desk, host = map(json.loads, capsys.readouterr().out.splitlines())
    assert (desk["source"], host["source"]) == ("measured", "cached")
    assert (desk["calibration"]["unit"], host["calibration"]["unit"]) == ("desk", "host")
