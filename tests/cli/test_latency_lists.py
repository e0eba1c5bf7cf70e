"""Width multipliers and input sizes as lists: `mnas latency` measures each, `mnas show` counts each."""

import json
from pathlib import Path

import numpy as np
import pytest

from mnas.cli.main import run
from mnas.nn.cost import cost
from mnas.scaling import at_width, input_sizes, width_multipliers
from mnas.tflite.metadata import image_side
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch

SMALL = ("mnasnet-small", "--classes", "10")
QUICK = ("--budget-s", "0.05")
LISTS = ("--input-size", "32,64", "--width-multiplier", "0.35,1")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Share the folders among all tests, so that one test's measurements are cached for another."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch, home):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("COLUMNS", "140")


def test_one_row_for_each_combination_with_its_own_calibration(capsys):
    assert run(["latency", *SMALL, *LISTS, *QUICK, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = ["mnasnet-small@0.35", "mnasnet-small"]
    assert [(row["input_size"], row["name"]) for row in rows] == [(s, n) for s in (32, 64) for n in names]
    for row in rows:
        whole = cost(named_arch(row["name"]), row["input_size"], 10)
        assert (row["params"], row["macs"]) == (whole.params, whole.macs)
        assert row["calibration"]["input_size"] == row["input_size"]
        assert row["low_ms"] <= row["latency_ms"] <= row["high_ms"]
    small, large = rows[0]["calibration"], rows[2]["calibration"]
    assert rows[1]["calibration"] == small
    assert small["reference_ms"] < large["reference_ms"]  # 4 times the pixels


def test_a_table_with_a_column_of_sizes(capsys):
    assert run(["latency", *SMALL, *LISTS, *QUICK]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if "mnasnet-small" in line and "litert:" not in line]  # without notes on load
    cells = [row.split()[:2] for row in rows]
    assert cells == [
        ["mnasnet-small@0.35", "32"],
        ["mnasnet-small", "32"],
        ["mnasnet-small@0.35", "64"],
        ["mnasnet-small", "64"],
    ]
    assert sum("ratio: multiple of the latency of mobilenetv2 at" in line for line in lines) == 2


def test_show_counts_each(capsys):
    assert run(["show", "mnasnet-a1", "--input-size", "224,96", "--width-multiplier", "0.5,1"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "mnasnet-a1" in line]
    assert ["mnasnet-a1", "224", "3,887,038", "311,579,072"] in rows
    assert [row[:3] for row in rows] == [
        ["mnasnet-a1@0.5", "224", "2,082,006"],
        ["mnasnet-a1", "224", "3,887,038"],
        ["mnasnet-a1@0.5", "96", "2,082,006"],
        ["mnasnet-a1", "96", "3,887,038"],
    ]


def test_show_at_one_width_shows_its_layers(capsys):
    assert run(["show", "mnasnet-a1", "--width-multiplier", "0.5"]) == 0
    scaled = capsys.readouterr().out
    assert run(["show", "mnasnet-a1@0.5"]) == 0
    assert capsys.readouterr().out == scaled
    assert "2,082,006" in scaled


def test_names_at_a_width(tmp_path):
    arch = named_arch("mnasnet-a1")
    assert at_width("mnasnet-a1", 1.0) == ("mnasnet-a1", arch)
    assert at_width("mnasnet-a1@0.5", 1.0) == ("mnasnet-a1@0.5", arch.scale_width(0.5))
    assert at_width("mnasnet-a1/s8", 0.35) == ("mnasnet-a1@0.35/s8", named_arch("mnasnet-a1@0.35/s8"))
    assert at_width("mobilenetv2", 1.4)[1].head_filters == 1792
    path = tmp_path / "arch.json"
    path.write_text(arch.to_json())
    assert at_width(str(path), 0.75) == (f"{path} x0.75", arch.scale_width(0.75))
    assert at_width("r1_k3_s22_e1_o16", 2)[1].blocks[0].filters == 32


def test_lists():
    assert input_sizes("auto") == ()
    assert input_sizes("96, 128") == (96, 128)
    assert width_multipliers("0.35,0.5,1") == (0.35, 0.5, 1.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--input-size", "96,x"],
            "--input-size must be a number of pixels, several joined by commas (96,128,160), or auto",
        ),
        (["--input-size", "96,"], "--input-size must be a number of pixels, several joined"),
        (["--input-size", "96,0"], "--input-size must be an integer from 1 to 8192, but got 0"),
        (["--input-size", "96,96"], "--input-size must not repeat a value, but got 96, 96"),
        (["--input-size", "96,16"], "--input-size must be at least the output stride 32, but got 16"),
        (["--width-multiplier", "wide"], "--width-multiplier must be a number, or several joined by commas"),
        (["--width-multiplier", "0.5,0"], "--width-multiplier must be a number from 0.01 to 100, but got 0.0"),
        (["--width-multiplier", "nan"], "--width-multiplier must be a number from 0.01 to 100, but got nan"),
        (["--width-multiplier", "1,1.0"], "--width-multiplier must not repeat a value, but got 1.0, 1.0"),
    ],
)
@pytest.mark.parametrize("command", ["latency", "show"])
def test_mistakes_get_one_line_before_anything_is_measured(capsys, command, arguments, words):
    assert run([command, "mnasnet-a1", *arguments]) == 2
    complaint = capsys.readouterr().err
    assert words in complaint
    assert complaint.count("\n") == 1


def test_a_width_twice_a_file_with_lists_and_a_drawing_of_several(capsys, tmp_path):
    assert run(["latency", "mnasnet-a1@0.5", "--width-multiplier", "0.5"]) == 2
    assert "--width-multiplier cannot scale 'mnasnet-a1@0.5', whose name already has a width" in capsys.readouterr().err
    file = tmp_path / "own.tflite"
    file.write_bytes(graph_bytes(named_arch("mnasnet-small@0.35"), 32, 10))
    for option, rule in ((("--input-size", "32,64"), "one size"), (("--width-multiplier", "0.5"), "1")):
        assert run(["latency", str(file), *option]) == 2
        assert f"{option[0]} must be {rule} for the file {str(file)!r}, but got {option[1]}" in capsys.readouterr().err
    assert run(["show", "mnasnet-a1", "--input-size", "96,128", "--save", str(tmp_path / "a.svg")]) == 2
    assert "--save must be used with one --width-multiplier and one --input-size, but got " in capsys.readouterr().err
    assert not (tmp_path / "a.svg").exists()


def test_a_file_is_measured_against_the_reference_at_its_own_size(capsys, tmp_path):
    small, large = tmp_path / "small.tflite", tmp_path / "large.tflite"
    small.write_bytes(graph_bytes(named_arch("mnasnet-small@0.35/s4"), 16, 10))
    large.write_bytes(graph_bytes(named_arch("mnasnet-small@0.35"), 32, 10))
    assert run(["latency", str(small), "--input-size", "32"]) == 2
    assert "small.tflite' takes images of 16 px, but got --input-size 32; omit --input-size" in capsys.readouterr().err
    options = ("--classes", "10", "--budget-s", "0.05", "--json")
    assert run(["latency", str(large), str(small), *options]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(Path(row["name"]).stem, row["input_size"], row["calibration"]["reference"]) for row in found] == [
        ("large", 32, "mobilenetv2"),
        ("small", 16, "mobilenetv2/s16"),
    ]


def test_a_file_without_image_input_has_no_side():
    file = graph_bytes(named_arch("mnasnet-small@0.35/s4"), 16, 10)
    assert image_side(file) == 16
    draw = np.random.default_rng(0)
    for end in (0, 4, 100, len(file) // 2):
        image_side(file[:end])  # whatever it returns, it raises nothing
    for _ in range(200):
        damaged = np.frombuffer(file[:20000], np.uint8).copy()
        damaged[draw.integers(8, 400, 5)] = draw.integers(0, 256, 5)
        image_side(damaged.tobytes())
