"""The gate: files that pass, files that fail, and their names; ONNX and ExecuTorch have their own tests."""

import dataclasses
import json
import math
import resource
from pathlib import Path

import numpy as np
import pytest
from started import Started

from mnas.export.gate import compare, judge
from mnas.export.images import RealImages, open_samples, photographs
from mnas.export.litert import litert_fp32
from mnas.export.ship import exported, make_gate, ship
from mnas.export.target import TOLERANCES, Target
from mnas.predict.model import load_model
from tests.export.networks import as_trained, info_of, network_of

FP32 = TOLERANCES["fp32"]


def images_of(labels) -> RealImages:
    count = len(labels)
    return RealImages(source="made up", pixels=np.zeros((count, 2, 2, 3), np.uint8), labels=np.array(labels))


def test_differences_are_relative_to_the_largest_output():
    expected = np.array([[1, -4], [2, 3]], np.float32)
    got = expected + np.array([[0.2, 0], [0, -0.4]], np.float32)
    found = compare(expected, got, images_of([0, 0]))
    assert found.max_difference == pytest.approx(0.1)
    assert found.mean_difference == pytest.approx(0.15 / 4)
    assert (found.agreement, found.accuracy, found.torch_accuracy) == (1.0, 0.5, 0.5)


def test_what_is_beyond_the_tolerance_is_named():
    labels = np.arange(1000) % 4
    expected = np.eye(4, dtype=np.float32)[labels]
    assert judge(compare(expected, expected, images_of(labels)), FP32) == ()
    [line] = judge(compare(expected, expected + np.float32(2e-4), images_of(labels)), FP32)
    assert "the outputs differ by 0.0002 of the largest output, but at most 0.0001 is allowed" in line
    wrong = expected.copy()
    wrong[:20] = np.roll(wrong[:20], 1, 1)  # 2 % of the images
    lines = judge(compare(expected, wrong, images_of(labels)), TOLERANCES["int8"])
    assert lines == ("the accuracy falls by 2.00 points, but at most 1 are allowed",)
    wrong[:200] = np.roll(expected[:200], 1, 1)
    lines = judge(compare(expected, wrong, images_of(labels)), TOLERANCES["int8"])
    assert lines[0] == (
        "file and network predict the same class for 80.00% of the images, but at least 85.00% are required"
    )
    without = dataclasses.replace(images_of(labels), labels=None)
    assert len(judge(compare(expected, wrong, without), TOLERANCES["int8"])) == 1  # images without labels


def test_one_image_of_few_may_differ():
    labels = np.zeros(20, int)
    expected = np.tile(np.array([1, 0], np.float32), (20, 1))
    got = expected.copy()
    got[0] = [0.5, 0.6]
    tolerance = dataclasses.replace(TOLERANCES["int8"], min_agreement=0.99)
    assert judge(compare(expected, got, images_of(labels)), tolerance) == ()
    got[1] = [0.5, 0.6]
    assert len(judge(compare(expected, got, images_of(labels)), tolerance)) == 2


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
def test_nan_never_passes(kind):
    expected = np.eye(4, dtype=np.float32)
    got = expected.copy()
    got[2, 1] = math.nan
    assert judge(compare(expected, got, images_of([0, 1, 2, 3])), TOLERANCES[kind])


def test_photographs_are_real_and_the_same_every_time():
    images = photographs(32)
    assert images.pixels.shape == (32, 32, 32, 3)
    assert images.labels is None
    assert np.array_equal(images.pixels, photographs(32).pixels)
    assert images.pixels.std() > 30
    assert len({image.tobytes() for image in images.pixels}) == 32


@pytest.fixture(scope="module")
def wanted():
    """A network and its gate over photographs, without timing."""
    network, info = network_of("same")
    return network, info, make_gate(network, info, photographs(info.input_size, 24), speed_s=0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_right_file_gets_its_name(tmp_path, wanted):
    network, info, gate = wanted
    target = Target(format="litert")
    content = exported(network, info, target, None)
    path, result = ship(content, target, tmp_path / "model.tflite", gate, FP32)
    assert result.passed
    assert path == tmp_path / "model.tflite"
    assert path.read_bytes() == content
    assert load_model(path).info.classes == info.classes
    assert names(tmp_path) == ["model.tflite", "model.tflite.gate.json"]
    report = json.loads((tmp_path / "model.tflite.gate.json").read_text())
    assert report["passed"] is True
    assert report["file"] == "model.tflite"
    assert report["comparison"]["images"] == 24
    assert report["comparison"]["max_difference"] == result.comparison.max_difference < 1e-4
    assert report["tolerance"]["max_difference"] == 1e-4
    assert report["size_bytes"] == len(content)


def test_a_wrong_file_is_set_aside_and_overwrites_nothing(tmp_path, wanted):
    _, info, gate = wanted
    other = litert_fp32(as_trained(info.arch, 5, seed=1), info)
    out = tmp_path / "model.tflite"
    out.write_bytes(b"the one that is in use")
    for name in ("model.failed.tflite", "model.failed-2.tflite"):
        path, result = ship(other, Target(format="litert"), out, gate, FP32)
        assert not result.passed
        assert path.name == result.file == name
        assert path.read_bytes() == other
        assert "the outputs differ by" in result.failures[0]
        assert json.loads((tmp_path / f"{name}.gate.json").read_text())["passed"] is False
    assert out.read_bytes() == b"the one that is in use"
    assert len(names(tmp_path)) == 5


def test_a_file_that_its_runtime_cannot_read_is_set_aside(tmp_path, wanted):
    network, info, gate = wanted
    content = litert_fp32(network, info)
    path, result = ship(content[:2000], Target(format="litert"), tmp_path / "model.tflite", gate, FP32)
    assert path.name == "model.failed.tflite"
    assert result.comparison is None
    assert "its runtime cannot run it" in result.failures[0]


def ship_to_a_full_disk(out: Path) -> None:
    network, info = network_of("same")
    gate = make_gate(network, info, photographs(info.input_size, 2), speed_s=0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        ship(litert_fp32(network, info), Target(format="litert"), out, gate, FP32)
    except OSError as error:
        print("refused:", error.strerror)


def test_a_full_disk_leaves_what_was_there(tmp_path):
    out = tmp_path / "model.tflite"
    out.write_bytes(b"the one that is in use")
    printed, _ = Started(ship_to_a_full_disk, out).communicate()
    assert printed.splitlines()[-1] == "refused: File too large"
    assert names(tmp_path) == ["model.tflite"]
    assert out.read_bytes() == b"the one that is in use"


def test_samples_are_split_as_training_splits_them(tmp_path, monkeypatch):
    from mnas.data.load import load_dataset
    from tests.export.networks import DIGITS

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dataset = load_dataset("digits", input_size=8, seed=3)
    info = dataclasses.replace(info_of(DIGITS, dataset.classes, 8), crop=1.0)
    samples = open_samples("digits", info, seed=3)
    images = samples.validation(info, 0, seed=3)
    assert sorted(i.tobytes() for i in images.pixels) == sorted(i.tobytes() for i in dataset.val.images)
    seen = {i.tobytes() for i in dataset.train.images}
    calibration = samples.calibration(info, 50, seed=3)
    assert len(calibration) == 50
    assert all(i.tobytes() in seen for i in calibration.pixels)
    assert np.array_equal(calibration.pixels, open_samples("digits", info, seed=3).calibration(info, 50, 3).pixels)


def test_classes_are_matched_by_name_as_eval_does(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _, info = network_of("same")
    with pytest.raises(ValueError, match="must have at most the model's 5 classes, but got 10"):
        open_samples("digits", info, seed=0)
    names = tuple("9876543210")
    backwards = dataclasses.replace(info, classes=names, input_size=8, crop=1.0)
    found = open_samples("digits", backwards, seed=0).validation(backwards, 50, 0)
    straight = dataclasses.replace(backwards, classes=names[::-1])
    expected = open_samples("digits", straight, seed=0).validation(straight, 50, 0)
    assert np.array_equal(found.pixels, expected.pixels)
    assert np.array_equal(found.labels, 9 - expected.labels)


def test_a_handful_of_images_is_no_gate():
    expected = np.eye(4, dtype=np.float32)[np.arange(12) % 4]
    (line,) = judge(compare(expected, expected, images_of(list(np.arange(12) % 4))), TOLERANCES["int8"])
    assert line == "a comparison needs at least 20 images, but got 12"
