"""`mnas paper table3`: published numbers, counts, latencies and the reasons for what is missing."""

import csv
import functools
import io
import json
from pathlib import Path

import pytest

from mnas.cli.main import run
from mnas.latency.fleet.pool import Device
from mnas.paper.published import TABLE3
from mnas.paper.settings import PaperSettings
from mnas.paper.table import PaperTable
from mnas.paper.table3 import BASE, table3

NAMES = ["YOLOv2", "SSD300", "SSD512", "MobileNetV1 + SSDLite", "MobileNetV2 + SSDLite", "MnasNet-A1 + SSDLite"]
UNMEASURED = PaperSettings(runtime="none")


@functools.cache
def unmeasured() -> PaperTable:
    return table3(UNMEASURED, progress=lambda text: None, say=print)


def rows() -> dict[str, dict[str, object]]:
    return {row["model"]: row for row in unmeasured().to_dict()["rows"]}


def test_published_numbers() -> None:
    keys = ("map", "map_small", "map_medium", "map_large", "params", "macs", "pixel1_ms")
    numbers = {name: tuple(row[f"published_{key}"] for key in keys) for name, row in rows().items()}
    assert numbers == {
        "YOLOv2": (21.6, 5.0, 22.4, 35.5, 50_700_000, 17_500_000_000, None),
        "SSD300": (23.2, 5.3, 23.2, 39.6, 36_100_000, 35_200_000_000, None),
        "SSD512": (26.8, 9.0, 28.9, 41.9, 36_100_000, 99_500_000_000, None),
        "MobileNetV1 + SSDLite": (22.2, None, None, None, 5_100_000, 1_300_000_000, 270),
        "MobileNetV2 + SSDLite": (22.1, None, None, None, 4_300_000, 800_000_000, 200),
        "MnasNet-A1 + SSDLite": (23.0, 3.8, 21.7, 42.0, 4_900_000, 800_000_000, 203),
    }
    assert [row.model for row in TABLE3] == NAMES
    assert {row.origin for row in TABLE3} == {"copy"}
    ratios = [row["published_ratio"] for row in rows().values()]
    assert ratios == [None, None, None, 270 / 203, 200 / 203, 1]


def test_our_counts() -> None:
    keys = ("params_80_classes", "params_90_ids", "macs_80_classes", "macs_90_ids")
    assert {name: tuple(row[key] for key in keys) for name, row in rows().items()} == {
        "YOLOv2": (None, None, None, None),
        "SSD300": (34_305_206, 35_641_826, 34_360_351_232, 34_858_153_472),
        "SSD512": (36_038_196, 37_513_116, 98_672_323_584, 100_079_698_944),
        "MobileNetV1 + SSDLite": (5_100_661, 5_246_911, 1_309_162_944, 1_322_426_304),
        "MobileNetV2 + SSDLite": (4_337_013, 4_500_543, 788_830_144, 804_397_504),
        "MnasNet-A1 + SSDLite": (4_745_771, 4_912_181, 821_099_872, 837_819_232),
    }
    for row in TABLE3[1:]:  # with one of the two numbers of classes, each published number comes out
        values = rows()[row.model]
        for published, key, tolerance in (
            (1e6 * row.params_m, "params", 0.03),
            (1e6 * row.macs_m, "macs", 0.03),
        ):
            counts = (values[f"{key}_80_classes"], values[f"{key}_90_ids"])
            assert min(abs(count / published - 1) for count in counts) < tolerance, (row.model, key)


def test_the_page_of_measurements_has_these_numbers() -> None:
    lines = (Path(__file__).parents[2] / "docs" / "measurements" / "paper-tables.md").read_text().splitlines()
    sizes = unmeasured().parts["size"]
    for row in unmeasured().rows:
        cells = [row[column.key].text or "not built" for column in sizes]
        assert f"| {' | '.join(cells)} |" in lines
        precisions = [row[f"published_map{part}"].text for part in ("", "_small", "_medium", "_large")]
        parts = ", ".join(precisions[1:]) if precisions[1] else "not published"
        assert f"| {cells[0]} | {precisions[0]} | {parts} |" in lines


def test_no_cell_is_empty_without_a_reason() -> None:
    for row in unmeasured().rows:
        for key, cell in row.items():
            assert bool(cell.text) != bool(cell.reason), key
    reasons = rows()["YOLOv2"]["missing"]
    assert "pytorchcv has only its backbone" in reasons["params_90_ids"]
    assert reasons["published_pixel1_ms"] == "the published table has no number here"
    assert reasons["litert_ms"] == "--runtime does not name litert"
    assert set(rows()[BASE]["missing"]) == {"litert_ms", "litert_ratio", "onnxruntime_ms", "onnxruntime_ratio"}


def test_text_json_and_csv(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    file = tmp_path / "table3.csv"
    assert run(["paper", "table3", "--runtime", "none", "--save", str(file)]) == 0
    output = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "MnasNet-A1 + SSDLite 23.0 3.8 21.7 42.0 copy" in lines
    assert "MobileNetV1 + SSDLite 22.2 (b) (b) (b) copy" in lines
    counts = "34.31M (-5.0 %) 35.64M (-1.3 %) 35.2B 34.36B (-2.4 %) 34.86B (-1.0 %)"
    assert f"SSD300 36.1M {counts}" in lines
    assert "MobileNetV1 + SSDLite 270 1.33 (c) (c) (d) (d)" in lines
    assert "(b) the published table has no number here" in lines
    assert f"wrote {file}" in lines
    assert run(["paper", "table3", "--runtime", "none", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == unmeasured().to_dict()
    read = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["model"] for row in read] == NAMES
    for row, values in zip(read, record["rows"], strict=True):
        reasons = values.pop("missing")
        assert row.pop("missing") == "; ".join(f"{key}: {reason}" for key, reason in reasons.items())
        assert row == {key: "" if value is None else str(value) for key, value in values.items()}


def test_latencies_here(capsys, tmp_path, monkeypatch) -> None:
    for home in ("CACHE", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{home}_HOME", str(tmp_path / home.lower()))
    monkeypatch.setattr(Device, "calibrate", functools.partialmethod(Device.calibrate, budget_s=0.1))
    assert run(["paper", "table3", "--runtime", "litert", "--budget-s", "0.1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    measured = {row["model"]: row for row in record["rows"]}
    for name in NAMES[3:]:
        row = measured[name]
        assert 0 < row["litert_ms_low"] <= row["litert_ms"] <= row["litert_ms_high"]
        assert 0 < row["litert_ratio_low"] <= row["litert_ratio"] <= row["litert_ratio_high"]
        assert row["litert_ratio"] == pytest.approx(row["litert_ms"] / measured[BASE]["litert_ms"], rel=1e-9)
        assert set(row["missing"]) >= {"onnxruntime_ms"}
    assert [measured[BASE][f"litert_ratio{end}"] for end in ("", "_low", "_high")] == [1, 1, 1]
    assert "this one is torchvision's" in measured["SSD300"]["missing"]["litert_ms"]
    assert any("mobilenetv2 at 320 px" in note for note in record["notes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runtime", "torch"], "--runtime must be none, or one or more of litert, onnxruntime, joined by commas"),
        (["--runtime", "litert,litert"], "--runtime must be none, or one or more of litert, onnxruntime"),
        (["--runtime", "none,litert"], "--runtime must be none, or one or more of litert, onnxruntime"),
        (["--device", "pixel"], "--device must be one of host, but got 'pixel'"),
        (["--budget-s", "0"], "--budget-s must be finite and greater than 0, but got 0"),
        (["--interval", "1"], "--interval must be between 0 and 1, but got 1"),
        (["--threads", "0"], "--threads must be an integer from 1 to 1024"),
        (["--save", "table.txt"], "--save must name a .csv file, but got 'table.txt'"),
        (["--save", "/nowhere/table.csv"], "'/nowhere/table.csv' is in a folder that does not exist"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(capsys, monkeypatch, tmp_path, arguments, message) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert run(["paper", "table3", *arguments]) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.count("\n") == 1
