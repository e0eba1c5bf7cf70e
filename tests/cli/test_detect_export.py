"""`mnas detect export`: a trained detector, exported in every kind, keeps its mAP, and nothing wrong gets its name."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import mnas
from mnas.cli.main import run
from mnas.data.detection.batches import open_box_batches
from mnas.data.detection.load import load_detection
from mnas.detection.exported import load_exported
from mnas.detection.loop import train_detector
from mnas.detection.presets import PRESETS
from mnas.detector import Detector, DetectorMetadata, Suppression, paper_boxes
from mnas.nn.detection.weights import load_detector, save_detector
from tests.detection.shapes import CLASSES, backbone, write_shapes
from tests.detectors import decisive, detector_of, metadata_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(weights, data) of a detector that has learnt discs and squares."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        folder = write_shapes(tmp_path_factory.mktemp("data") / "shapes", test=0)
        metadata = DetectorMetadata(
            detector=Detector(arch=backbone(), boxes=paper_boxes(), input_size=64), classes=CLASSES,
            mean=(0.5,) * 3, std=(0.5,) * 3,
        )  # fmt: skip
        config = dataclasses.replace(
            PRESETS["small"], epochs=60, batch_size=8, learning_rate=0.5, ema_decay=0.9, bn_momentum=0.1,
            accelerator="cpu", threads=1, score_every=60, augmentation="none",
        )  # fmt: skip
        batches = open_box_batches(load_detection(folder), input_size=64, augmentation="none", seed=0, workers=0)
        result = train_detector(metadata, batches, config, tmp_path_factory.mktemp("out") / "t")
        assert result.ap50 > 0.5
        yield result.weights, folder


def gate_of(path: Path) -> dict:
    return json.loads(Path(f"{path}.gate.json").read_text())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--to", "litert"], "model.tflite"),
        (["--to", "litert", "--postprocess"], "model.postprocess.tflite"),
        (["--to", "litert", "--fp16"], "model.fp16.tflite"),
        (["--to", "litert", "--postprocess", "--int8", "--calibration-images", "8"], "model.postprocess.int8.tflite"),
        (["--to", "onnx", "--postprocess", "--most", "20"], "model.postprocess.onnx"),
    ],
)
def test_map_is_that_of_the_network(
    trained: tuple[Path, Path], options: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, data = trained
    arguments = [*options, "--data", str(data), "--out", str(tmp_path), "--speed-s", "0"]
    # on 8 images, int8 may lose more than a point
    limits = ["--max-precision-loss", "0.1"] if "--int8" in options else []
    assert run(["detect", "export", str(weights.parent), *arguments, *limits]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "mAP in torch" in printed
    assert ("mAP of all boxes" in printed) == ("--postprocess" in options)
    assert "compared with the network on validation images of shapes" in printed
    gate = gate_of(tmp_path / name)
    comparison, rules = gate["comparison"], gate["suppression"]
    assert gate["passed"]
    assert comparison["images"] == 8
    assert comparison["objects"] > 20
    assert comparison["torch_mean_precision"] > 0.3
    recorded = comparison["recorded_mean_precision"]
    assert recorded == load_detector(weights)[1].mean_precision
    # without rules, torch's score repeats that of the training; the rules may only drop boxes
    assert comparison["torch_mean_precision"] == pytest.approx(
        recorded, abs=0.05 if "--postprocess" in options else 1e-6
    )
    loss = comparison["torch_mean_precision"] - comparison["mean_precision"]
    assert loss <= (0.1 if limits else 0.001)
    if not limits:
        assert comparison["agreement"] >= gate["tolerance"]["min_agreement"] >= 0.9
    expected = Suppression(most=20 if "--most" in options else 100) if "--postprocess" in options else None
    assert rules == (None if expected is None else dataclasses.asdict(expected))
    detector = load_exported(tmp_path / name)
    assert detector.metadata.classes == CLASSES
    assert detector.metadata.trained_on == load_detector(weights)[1].trained_on
    # the command that scores files gives the same number
    assert run(["detect", "eval", str(tmp_path / name), "--data", str(data), "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored["mean_precision"] == pytest.approx(comparison["mean_precision"], abs=1e-9)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.gate.json"]


def test_without_data_the_objects_are_those_of_the_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector = detector_of(input_size=96)
    save_detector(tmp_path / "d.safetensors", decisive(detector), metadata_of(detector))
    command = ["detect", "export", str(tmp_path / "d.safetensors"), "--to", "litert"]
    assert run([*command, "--postprocess", "--speed-s", "0.01"]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert re.search(r"same objects +(99|100)\.\d+%", printed)
    assert "crops of scikit-learn's two sample photographs" in printed
    gate = gate_of(tmp_path / "d.postprocess.tflite")
    assert gate["comparison"]["mean_precision"] is None
    assert gate["comparison"]["objects"] > 100
    assert gate["speed"]["ratio"] == 1
    content = (tmp_path / "d.postprocess.tflite").read_bytes()
    assert run([*command, "--postprocess"]) == 2
    assert "--out must be new" in capsys.readouterr().err
    assert run([*command, "--postprocess", "--overwrite", "--speed-s", "0"]) == 0
    assert (tmp_path / "d.postprocess.tflite").read_bytes() == content
    [file] = mnas.detect.export(tmp_path / "d.safetensors", out=tmp_path / "api.tflite", speed_s=0)
    assert file.gate.passed
    assert load_exported(file.path).suppression is None


def test_a_wrong_file_is_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The writer gets other weights than the network that the file is compared with."""
    from mnas.export.detector import run as exports

    detector = detector_of()
    save_detector(tmp_path / "d.safetensors", decisive(detector), metadata_of(detector))
    write = exports.write_detector
    monkeypatch.setattr(exports, "write_detector", lambda network, *rest: write(decisive(detector, seed=5), *rest))
    assert run(["detect", "export", str(tmp_path / "d.safetensors"), "--to", "litert", "--speed-s", "0"]) == 2
    error = capsys.readouterr().err
    assert "find the same object in" in error
    assert "quarantined as" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("d.failed.tflite", "d.failed.tflite.gate.json", "d.safetensors")
    ]
    assert not gate_of(tmp_path / "d.failed.tflite")["passed"]


def test_a_loss_of_map_fails(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file whose boxes are shifted by a tenth of the image has a lower mAP."""
    from mnas.export.detector import gate as gates

    weights, data = trained
    real = gates.file_detect

    def shifted(detector):
        detect = real(detector)
        return lambda pixels: [((boxes + np.float32(0.1)).clip(0, 1), *rest) for boxes, *rest in detect(pixels)]

    monkeypatch.setattr(gates, "file_detect", shifted)
    options = ["--data", str(data), "--out", str(tmp_path), "--speed-s", "0", "--min-agreement", "0"]
    assert run(["detect", "export", str(weights), "--to", "litert", *options]) == 2
    assert re.search(r"mAP falls by \d+\.\d\d points, but at most 0\.1 are allowed", capsys.readouterr().err)
    assert not (tmp_path / "model.tflite").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "executorch"], "--to must be one or more of litert, onnx, but got 'executorch'"),
        (["--to", "litert", "--int8"], "--int8 needs --data for images to calibrate on"),
        (["--to", "litert", "--int8", "--fp16", "--data", "x"], "--int8 and --fp16 must not be used together"),
        (["--to", "onnx", "--fp16"], "--fp16 must be used with --to litert alone, but got --to onnx"),
        (["--to", "litert", "--most", "5"], "--most must be used with --postprocess, but got it alone"),
        (["--to", "litert", "--postprocess", "--score-threshold", "2"], "--score-threshold must be a number from 0 to"),
        (["--to", "litert", "--postprocess", "--nms-iou", "0"], "--nms-iou must be a number from 0.01 to 1"),
        (["--to", "litert", "--min-agreement", "2"], "--min-agreement must be a number from 0 to 1, but got 2"),
        (["--to", "litert", "--out", "x.onnx"], "--out must end in .tflite for litert, but got 'x.onnx'"),
        (["--to", "litert", "--data", "nowhere"], "--data must be a folder of images with boxes, but got 'nowhere'"),
        (["--to", "litert", "--speed-s", "-1"], "--speed-s must be 0 (not measured) or more, but got -1"),
    ],
)
def test_mistakes_get_one_line(
    tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    detector = detector_of()
    save_detector(tmp_path / "d.safetensors", decisive(detector), metadata_of(detector))
    assert run(["detect", "export", "d.safetensors", *options]) == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["d.safetensors"]


def test_what_is_no_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    for name, words in (
        ("x.safetensors", "weights of a detector must be a .safetensors file written by mnas"),
        ("missing", "does not exist"),
    ):
        assert run(["detect", "export", str(tmp_path / name), "--to", "litert"]) == 2
        assert words in capsys.readouterr().err


def test_few_objects_ask_for_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector = detector_of()
    network = decisive(detector)
    with torch.no_grad():
        for predictions in network.predict:
            predictions["classes"].output.conv.bias.view(-1, 4)[:, 0] = 50
    save_detector(tmp_path / "d.safetensors", network, metadata_of(detector))
    assert run(["detect", "export", str(tmp_path / "d.safetensors"), "--to", "litert", "--speed-s", "0"]) == 2
    assert "the network finds 0 in 32 crops of" in (error := capsys.readouterr().err)
    assert "use --data with images like those of its training" in error
