"""A training that diverges goes back to its best epoch at a lower rate, and one that no longer gains ends."""

import contextlib
import dataclasses
import json
import signal
from pathlib import Path

import pytest
import torch
from train_toy import ARCH, CONFIG, STEPS, Killing, toy_batches, values

from mnas.nn.weights import load_weights
from mnas.train.config import TrainConfig
from mnas.train.guard import Guard
from mnas.train.loop import train
from mnas.train.process import TrainingStopped
from mnas.train.scoring import Scored, TrainingError, moments, score
from mnas.train.watch import TrainWatcher

LEARNT = dataclasses.replace(CONFIG, epochs=12)
WRECKING = dataclasses.replace(
    CONFIG, epochs=4, optimizer="sgd", learning_rate=90.0, warmup_epochs=0.0, weight_decay=0.0, ema_decay=0.0,
    estimate_statistics=0, retries=8,
)  # fmt: skip
"""A rate that a network which has learnt does not survive."""


class Listening(TrainWatcher):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, progress):
        pass

    def epoch(self, row):
        pass

    def notice(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory):
    """Return a network that has learnt the toy images."""
    folder = tmp_path_factory.mktemp("learnt") / "t"
    assert train(ARCH, toy_batches(LEARNT), LEARNT, folder).accuracy > 0.7
    return load_weights(folder / "model.safetensors", 3)


def test_a_training_whose_rate_is_too_high_goes_back_and_ends_well(learnt, tmp_path: Path) -> None:
    watcher = Listening()
    trained = train(ARCH, toy_batches(WRECKING), WRECKING, tmp_path / "t", initial=learnt, watcher=watcher)
    assert trained.restarts == len(watcher.lines) >= 1
    assert all(line.startswith("the training diverged: ") for line in watcher.lines)
    assert "at a quarter of the learning rate (attempt 1 of 8)" in watcher.lines[0]
    rows = values(tmp_path / "t")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert int(rows[-1]["restarts"]) == trained.restarts
    assert json.loads((tmp_path / "t" / "result.json").read_text())["restarts"] == trained.restarts
    assert trained.accuracy > 0.6


def test_without_retries_the_same_training_ends_with_an_error(learnt, tmp_path: Path) -> None:
    config = dataclasses.replace(WRECKING, retries=0)
    with pytest.raises(TrainingError, match=r"not finite.*; use a lower --learning-rate \(now 90\)"):
        train(ARCH, toy_batches(config), config, tmp_path / "t", initial=learnt)


def test_it_fails_after_the_last_attempt(learnt, tmp_path: Path) -> None:
    config = dataclasses.replace(WRECKING, retries=1)
    with pytest.raises(TrainingError, match=r"the training diverged: .*; use a lower --learning-rate \(now 22.5\)"):
        train(ARCH, toy_batches(config), config, tmp_path / "t", initial=learnt)


def test_outputs_that_are_not_finite_count_as_diverged(learnt, tmp_path: Path) -> None:
    watcher, config = Listening(), dataclasses.replace(WRECKING, learning_rate=900.0)
    trained = train(ARCH, toy_batches(config), config, tmp_path / "t", initial=learnt, watcher=watcher)
    assert watcher.lines[0] == (
        "the training diverged: the network's outputs are not finite; going back to the start, at a quarter of the "
        "learning rate (attempt 1 of 8)"
    )
    assert trained.restarts == len(watcher.lines) > 1


def test_stopped_at_any_step_it_resumes_to_the_same_end(learnt, tmp_path: Path) -> None:
    train(ARCH, toy_batches(WRECKING), WRECKING, tmp_path / "whole", initial=learnt)
    for step in (1, 2, STEPS, 2, STEPS + 1, 3, 1, 5):
        with contextlib.suppress(TrainingStopped):
            train(
                ARCH, toy_batches(WRECKING), WRECKING, tmp_path / "t", initial=learnt, resume=True,
                watcher=Killing(signal.SIGTERM, step),
            )  # fmt: skip
    train(ARCH, toy_batches(WRECKING), WRECKING, tmp_path / "t", initial=learnt, resume=True)
    assert values(tmp_path / "t") == values(tmp_path / "whole")
    model = "model.safetensors"
    assert (tmp_path / "t" / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()


def test_patience_ends_with_the_best_epoch(learnt, tmp_path: Path) -> None:
    """At a moderate rate, a network that has learnt all it can gains nothing, so the training ends early."""
    config = dataclasses.replace(LEARNT, epochs=30, learning_rate=0.3, patience=3, estimate_statistics=0)
    trained = train(ARCH, toy_batches(config), config, tmp_path / "t", initial=learnt)
    rows = values(tmp_path / "t")
    accuracies = [float(row["val_accuracy"]) for row in rows]
    best = max(accuracies)
    mean_std = moments((0.5,) * 3, (0.2,) * 3, torch.device("cpu"))
    start = score(learnt.eval(), toy_batches(config).scoring("val", 50), *mean_std).accuracy
    assert trained.epochs == len(rows) < 30
    assert trained.accuracy == max(start, best)
    assert trained.best_epoch == (len(accuracies) - accuracies[::-1].index(best) if best >= start else 0)
    assert len(rows) == last_rise([start, *accuracies]) + 3
    whole = (tmp_path / "t" / "model.safetensors").read_bytes()
    for step in (STEPS + 1, 2 * STEPS, 1):
        with contextlib.suppress(TrainingStopped):
            train(
                ARCH, toy_batches(config), config, tmp_path / "u", initial=learnt, resume=True,
                watcher=Killing(signal.SIGTERM, step),
            )  # fmt: skip
    train(ARCH, toy_batches(config), config, tmp_path / "u", initial=learnt, resume=True)
    assert values(tmp_path / "u") == rows
    assert (tmp_path / "u" / "model.safetensors").read_bytes() == whole


def last_rise(accuracies: list[float]) -> int:
    """Return the last index at which an accuracy exceeds all before it, or 0."""
    return max((n for n in range(1, len(accuracies)) if accuracies[n] > max(accuracies[:n])), default=0)


def scored(accuracy: float, images: int) -> Scored:
    """Return the scores of two equally frequent classes."""
    half = images // 2
    right = round(accuracy * images)
    return Scored(accuracy=accuracy, loss=1.0, right=(right - right // 2, right // 2), counts=(half, images - half))


@pytest.mark.parametrize(
    ("best", "accuracy", "images", "diverged"),
    [
        (0.9, 0.80, 1000, False),  # the fluctuation of a high rate
        (0.9, 0.69, 1000, True),  # the majority class has .5: less than .7 loses more than half of the gain
        (0.9, 0.71, 1000, False),
        (0.55, 0.52, 1000, False),  # more than half of a small gain, but noise
        (0.55, 0.40, 1000, True),
        (0.6, 0.40, 20, False),  # 20 images: a standard error is .11
    ],
)
def test_an_epoch_has_diverged_if_it_lost_half_of_the_gain(
    best: float, accuracy: float, images: int, diverged: bool
) -> None:
    guard = Guard(dataclasses.replace(CONFIG, retries=1))
    guard.add(1, best, {})
    line = guard.collapse(scored(accuracy, images))
    assert bool(line) == diverged
    assert not Guard(CONFIG).collapse(scored(accuracy, images))


def test_a_guard_that_does_not_fit_its_training_is_refused() -> None:
    config: TrainConfig = dataclasses.replace(CONFIG, retries=2, patience=2)
    guard = Guard(config)
    guard.add(1, 0.5, {"network": {"w": torch.ones(1)}})
    state = guard.state()
    assert state is not None
    other = Guard(config)
    other.load(state, 1)
    assert (other.epoch, other.accuracy, other.rose, other.restarts) == (1, 0.5, 1, 0)
    for changes in ({"epoch": 2}, {"epoch": "1"}, {"rose": -1}, {"restarts": 3}, {"accuracy": 2.0}, {"accuracy": None}):
        with pytest.raises(ValueError, match=r"it has|its best epoch"):
            Guard(config).load({**state, **changes}, 1)
    with pytest.raises(ValueError, match="it has no best epoch"):
        Guard(config).load(None, 1)
