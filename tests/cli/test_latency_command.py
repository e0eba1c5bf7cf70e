"""`mnas latency` as it is called."""

import json

import pytest

from mnas.cli.main import run
from mnas.nn.cost import cost
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch

QUICK = ("--input-size", "32", "--classes", "10", "--budget-s", "0.1")


@pytest.fixture(autouse=True)
def short_calibration(monkeypatch):
    from mnas.cli import latency

    slow = latency.calibrate
    monkeypatch.setattr(latency, "calibrate", lambda *args, **kwargs: slow(*args, **kwargs, budget_s=0.1))


def test_a_table_with_names_files_and_costs(capsys, tmp_path):
    file = tmp_path / "own.tflite"
    file.write_bytes(graph_bytes(named_arch("mnasnet-small@0.35"), 32, 10))
    assert run(["latency", "mnasnet-small", str(file), *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "0.76M" in printed  # mnasnet-small's params with 10 classes
    assert "own.tflite" in "".join(printed.split())
    assert "ratio to mobilenetv2 at 32 px" in printed


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
        ([], "name at least one architecture"),
        (["nothing.tflite"], "model file 'nothing.tflite' cannot be read: No such file or directory"),
        (["mnasnet-a7"], "mnasnet-a1"),
        (["mnasnet-a1", "--input-size", "8"], "input size must be at least the output stride 32, but got 8"),
        (["mnasnet-a1", "--budget-s", "0"], "measuring budget must be more than 0 s"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(capsys, arguments, words):
    assert run(["latency", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert words in lines[-1]
    assert lines[-1].startswith("mnas: ")


def test_a_file_that_is_no_model_gets_one_line(capsys, tmp_path):
    file = tmp_path / "text.tflite"
    file.write_text("hello, this is text")
    assert run(["latency", str(file)]) == 2
    assert "a model must be a LiteRT file" in capsys.readouterr().err
