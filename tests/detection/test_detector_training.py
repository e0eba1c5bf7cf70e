"""A detector's training: it learns, repeats bit for bit after any stop, and keeps what it must."""

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from shapes import CLASSES, backbone, write_shapes

from mnas.data.detection.batches import BoxBatches, open_box_batches
from mnas.data.detection.load import load_detection
from mnas.detection.loop import train_detector
from mnas.detection.presets import PRESETS
from mnas.detector import DefaultBoxes, Detector, DetectorMetadata, paper_boxes
from mnas.nn.detection.weights import load_detector
from mnas.nn.network import build_network
from mnas.train.process import TrainingStopped
from mnas.train.scoring import TrainingError
from mnas.train.watch import TrainProgress, Unwatched

SIZE = 64
CONFIG = dataclasses.replace(
    PRESETS["small"], epochs=3, batch_size=8, learning_rate=0.5, ema_decay=0.9, bn_momentum=0.1,
    accelerator="cpu", threads=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes")


def batches_of(folder: Path, **more: Any) -> BoxBatches:
    data = load_detection(folder)
    options = {"input_size": SIZE, "augmentation": "small", "seed": 0, "workers": 0, "cache_dir": folder / "cache"}
    return open_box_batches(data, **{**options, **more})


def metadata(boxes: DefaultBoxes | None = None) -> DetectorMetadata:
    detector = Detector(arch=backbone(), boxes=boxes or paper_boxes(), input_size=SIZE)
    return DetectorMetadata(detector=detector, classes=CLASSES, mean=(0.5,) * 3, std=(0.5,) * 3)


class StopAt(Unwatched):
    """Sends its own process a signal after this number of steps."""

    def __init__(self, step: int) -> None:
        self.left = step

    def step(self, progress: TrainProgress) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "whole"
    train_detector(metadata(), batches_of(folder), CONFIG, out)
    return out


def tensors(out: Path) -> dict[str, torch.Tensor]:
    network, _ = load_detector(out / "model.safetensors")
    return network.state_dict()


def test_it_learns_and_records_its_scores(folder: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=60, score_every=60, augmentation="none")
    trained = train_detector(metadata(), batches_of(folder, augmentation="none"), config, tmp_path / "t")
    network, stored = load_detector(trained.weights)
    assert trained.ap50 > 0.5  # 0 after the first epochs; the validation images are among those of training
    assert trained.test_ap50 is not None
    assert trained.test_ap50 > 0.05
    assert stored.mean_precision == trained.mean_precision
    assert stored.classes == CLASSES
    assert not network.training
    assert trained.epochs == 60
    report = trained.report.read_text()
    assert "test part of shapes" in report
    assert f"<b>{trained.test_ap50:.1%}</b><span>AP50: at IoU .5" in report
    assert json.loads((tmp_path / "t" / "result.json").read_text())["mean_precision"] == trained.mean_precision


@pytest.mark.parametrize("step", [1, 2, 5])  # within an epoch, and at its end
def test_a_stopped_training_ends_with_the_same_bits(folder: Path, whole: Path, tmp_path: Path, step: int) -> None:
    out = tmp_path / "t"
    with pytest.raises(TrainingStopped) as stop:
        train_detector(metadata(), batches_of(folder), CONFIG, out, watcher=StopAt(step))
    assert stop.value.code == 128 + signal.SIGTERM
    resumed = train_detector(metadata(), batches_of(folder), CONFIG, out, resume=True)
    assert resumed.mean_precision == json.loads((whole / "result.json").read_text())["mean_precision"]
    for (name, ours), theirs in zip(tensors(out).items(), tensors(whole).values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_another_training_is_not_resumed(folder: Path, whole: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(CONFIG, learning_rate=0.2)
    with pytest.raises(ValueError, match="training with other settings"):
        train_detector(metadata(), batches_of(folder), other, whole, resume=True)
    with pytest.raises(ValueError, match="already contains a training"):
        train_detector(metadata(), batches_of(folder), CONFIG, whole)
    fitted = DefaultBoxes(shapes=(((0.1, 0.1),), *paper_boxes().shapes[1:]))
    finer = DefaultBoxes(shapes=(((0.05, 0.1),), *paper_boxes().shapes[1:]))
    for boxes, now, words in (
        (paper_boxes(), fitted, "boxes: paper before, fitted now"),
        (fitted, finer, "other fitted boxes"),
    ):
        out = tmp_path / words[:5]
        shutil.copytree(whole, out)
        config = json.loads((out / "config.json").read_text())
        config["identity"]["detector"] = metadata(boxes=boxes).detector.fingerprint
        config["detector"] = metadata(boxes=boxes).detector.to_dict()
        (out / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=rf"other settings \({words}\)\. Use the same settings"):
            train_detector(metadata(boxes=now), batches_of(folder), CONFIG, out, resume=True)
    with pytest.raises(ValueError, match=r"\(backbone with random weights before, with --weights now\)\. Use the same"):
        train_detector(
            metadata(), batches_of(folder), CONFIG, whole, backbone=build_network(backbone(), 5), resume=True
        )
    smaller = write_shapes(tmp_path / "few", train=12)
    with pytest.raises(ValueError, match=r"\(data: shapes before, few now, images: 16 train \+ 8 val \+ 4 test before"):
        train_detector(metadata(), batches_of(smaller), CONFIG, whole, resume=True)
    again = train_detector(metadata(), batches_of(folder), CONFIG, whole, resume=True)  # is only read
    assert again.epochs == CONFIG.epochs


def test_a_damaged_result_is_written_again_from_the_checkpoint(folder: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "whole"  # the title of the report
    shutil.copytree(whole, out)
    (out / "result.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is not the result of a detector's training .*; remove it, and use --resume"):
        train_detector(metadata(), batches_of(folder), CONFIG, out, resume=True)
    (out / "result.json").unlink()
    (out / "report.html").unlink()
    train_detector(metadata(), batches_of(folder), CONFIG, out, resume=True)
    for name in ("result.json", "report.html"):
        assert (out / name).read_text() == (whole / name).read_text(), name


def test_the_backbone_begins_with_given_weights_and_frozen_statistics_stay(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    initial = build_network(backbone(), 5)
    config = dataclasses.replace(CONFIG, epochs=1, learning_rate=1e-9, ema_decay=0.0, batch_norm="frozen")
    train_detector(metadata(), batches_of(folder), config, tmp_path / "t", backbone=initial)
    after = tensors(tmp_path / "t")
    for name, tensor in initial.state_dict().items():
        if name.startswith(("stem.", "layers.")):
            torch.testing.assert_close(after[f"backbone.{name}"], tensor, atol=1e-6, rtol=0)


def test_a_divergence_ends_with_one_line(folder: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, learning_rate=1e3, optimizer="sgd", warmup_epochs=0.0, estimate_statistics=0)
    with pytest.raises(TrainingError, match=r"the training diverged: .*; use a lower --learning-rate"):
        train_detector(metadata(), batches_of(folder), config, tmp_path / "t")


def test_an_epoch_that_is_not_scored_has_no_score(folder: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, score_every=2)
    train_detector(metadata(), batches_of(folder), config, tmp_path / "t")
    lines = (tmp_path / "t" / "metrics.csv").read_text().splitlines()
    place = lines[0].split(",").index("val_precision")
    assert [line.split(",")[place] == "nan" for line in lines[1:]] == [True, False, False]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
