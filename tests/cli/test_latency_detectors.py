"""`mnas latency` measures whole detectors, with the selection of boxes inside, from names and from files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from mnas.arch import Arch
from mnas.cli.main import run
from mnas.detector import Detector, Suppression, counted_boxes, paper_boxes
from mnas.export.detector.random_detector import random_detector_file
from mnas.nn.detection.cost import detector_cost
from mnas.tflite.detection.writer import detector_graph, write_detector
from tests.detectors import CLASSES, STRINGS, decisive, detector_of, metadata_of, run_litert

QUICK = ("--input-size", "64", "--classes", "3", "--budget-s", "0.05")
HEAD = ("--head", "ssdlite")


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for home in ("CACHE", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{home}_HOME", str(tmp_path / home.lower()))


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert run(["latency", *arguments, "--json"]) == 0, capsys.readouterr().err
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_an_architecture_with_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    arch = Arch.from_block_strings(STRINGS)
    detector = Detector(arch=arch, boxes=paper_boxes(), input_size=64)
    plain, whole = *rows(capsys, STRINGS, *QUICK), *rows(capsys, STRINGS, *QUICK, *HEAD)
    assert whole["name"] == f"{STRINGS}+ssdlite"
    cost = detector_cost(detector, 3)
    assert (whole["params"], whole["macs"]) == (cost.params, cost.macs)
    assert whole["size_bytes"] == len(detector_graph(detector, 3, Suppression()))
    assert whole["latency_ms"] > plain["latency_ms"]
    (finer,) = rows(capsys, STRINGS, *QUICK, *HEAD, "--boxes", "2,3,6,6,6,6,6")
    boxes = counted_boxes((2, 3, 6, 6, 6, 6, 6))
    assert finer["macs"] == detector_cost(Detector(arch=arch, boxes=boxes, input_size=64), 3).macs > cost.macs


def test_int8_and_other_runtimes(capsys: pytest.CaptureFixture[str]) -> None:
    (int8,) = rows(capsys, STRINGS, *QUICK, *HEAD, "--int8")
    assert int8["int8"]
    both = rows(capsys, STRINGS, *QUICK, *HEAD, "--runtime", "litert-builtin,onnxruntime")
    assert [row["runtime"] for row in both] == ["litert-builtin", "onnxruntime"]


@pytest.mark.parametrize("rules", [None, Suppression()])
def test_exported_files(capsys: pytest.CaptureFixture[str], tmp_path: Path, rules: Suppression | None) -> None:
    detector = detector_of()
    path = tmp_path / "d.tflite"
    path.write_bytes(write_detector(decisive(detector), metadata_of(detector), rules))
    (row,) = rows(capsys, str(path), "--budget-s", "0.05")
    assert row["calibration"]["input_size"] == 64
    assert row["size_bytes"] == path.stat().st_size
    path.write_bytes(path.read_bytes().replace(b"a b", b"a c"))
    assert run(["latency", str(path), "--budget-s", "0.05"]) == 2
    assert "was changed after mnas wrote it" in capsys.readouterr().err


def test_random_weights_give_few_boxes() -> None:
    """The selection of many boxes would take longer than the network, which no trained detector asks for."""
    detector = Detector(arch=Arch.from_block_strings(STRINGS), boxes=paper_boxes(), input_size=128)
    image = np.random.default_rng(0).uniform(0, 1, (128, 128, 3)).astype(np.float32)
    scores = run_litert(detector_graph(detector, 20), image)["scores"]
    assert (scores > Suppression().score_threshold).mean() < 0.02
    model = schema.ModelT.InitFromPackedBuf(random_detector_file(detector, len(CLASSES), "litert"))
    assert [code.customCode for code in model.operatorCodes][-1] == b"TFLite_Detection_PostProcess"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--boxes", "3,6"], "--boxes must be used with --head, but got --boxes 3,6 alone; add --head ssdlite"),
        ([*HEAD, "--boxes", "fitted"], "--boxes must be paper, or the numbers of boxes at each pixel of each map"),
        ([*HEAD, "--boxes", "3,6"], "must have default boxes on two or three more, but got 2 maps"),
        ([*HEAD, "--boxes", "3,6,6,6,6,0"], "a map must have 1 to 32 shapes of boxes, but got 0"),
        ([*HEAD, "--batch", "2"], "--batch must be 1 for a detector, but got 2"),
        ([*HEAD, "--input-size", "100"], "--input-size must be a multiple of 32, but got 100"),
        ([*HEAD, "--runtime", "torch"], "--runtime must be one of litert, litert-builtin, onnxruntime for a detector"),
        (
            [*HEAD, "--int8", "--runtime", "onnxruntime"],
            "--runtime must be one of litert, litert-builtin for a detector in int8, but got onnxruntime",
        ),
        (["--head", "yolo"], "--head must be one of none, ssdlite, but got 'yolo'"),
    ],
)
def test_mistakes_get_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert run(["latency", STRINGS, *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert words in lines[-1]


def test_a_network_that_cannot_be_a_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in (
        ("mnasnet-small/s8", "must have output stride 32, but got 8"),
        ("nasnet-a", "network of blocks"),
    ):
        assert run(["latency", name, *HEAD]) == 2
        assert words in capsys.readouterr().err.strip().splitlines()[-1]
