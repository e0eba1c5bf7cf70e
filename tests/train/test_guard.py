"""A training that diverges goes back to its best epoch at a lower rate, and one that no longer gains ends."""

import contextlib
import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from train_toy import ARCH, CONFIG, STEPS, Killing, toy_batches, toy_dataset, values

from mnas.data.arrays import ArrayBatches
from mnas.data.dataset import ImageArrays
from mnas.nn.network import build_network
from mnas.nn.weights import load_weights
from mnas.train.checkpoint import load_checkpoint, save_checkpoint
from mnas.train.config import TrainConfig
from mnas.train.guard import Guard
from mnas.train.initial import WeightsSource, initial_network
from mnas.train.loop import train
from mnas.train.presets import PRESETS
from mnas.train.process import TrainingStopped
from mnas.train.scoring import Scored, TrainingError, moments, score
from mnas.train.watch import TrainWatcher
from mnas.zoo.architectures import named_arch
from tests.nn.test_published_weights import needs_packages

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
    guard.add(1, scored(best, images), {})
    line = guard.collapse(0.9, scored(accuracy, images))
    assert bool(line) == diverged
    assert not Guard(CONFIG).collapse(0.9, scored(accuracy, images))


def test_a_guard_that_does_not_fit_its_training_is_refused() -> None:
    config: TrainConfig = dataclasses.replace(CONFIG, retries=2, patience=2)
    guard = Guard(config)
    guard.begin(1.1, 1.1)
    guard.add(1, scored(0.5, 10), {"network": {"w": torch.ones(1)}})
    state = guard.state()
    assert state is not None
    other = Guard(config)
    other.load(state, 1)
    assert (other.epoch, other.accuracy, other.rose, other.restarts) == (1, 0.5, 1, 0)
    for changes in (
        {"epoch": 2},
        {"epoch": "1"},
        {"rose": -1},
        {"restarts": 3},
        {"accuracy": 2.0},
        {"accuracy": None},
        {"reached": "1"},
        {"most_loss": 0},
    ):
        with pytest.raises(ValueError, match=r"it has|its best epoch"):
            Guard(config).load({**state, **changes}, 1)
    with pytest.raises(ValueError, match="it has no best epoch"):
        Guard(config).load(None, 1)


def test_a_network_that_begins_to_see_rare_classes_has_not_diverged() -> None:
    """At the start it predicts the frequent class always, which is accurate but not balanced."""
    guard = Guard(dataclasses.replace(CONFIG, retries=1, patience=1, balance="sampling"))
    guard.add(0, Scored(accuracy=0.95, loss=1.0, right=(95, 0), counts=(95, 5)), {})
    better = Scored(accuracy=0.8, loss=1.0, right=(76, 4), counts=(95, 5))
    assert not guard.collapse(0.9, better)
    guard.add(1, better, {})
    assert (guard.epoch, guard.accuracy, guard.reached, guard.ends(1)) == (1, 0.8, pytest.approx(0.8), False)
    assert guard.collapse(0.9, Scored(accuracy=0.95, loss=1.0, right=(95, 0), counts=(95, 5))) == ""  # 5 rare images
    assert guard.collapse(0.9, Scored(accuracy=0.01, loss=1.0, right=(1, 0), counts=(95, 5)))


@pytest.mark.parametrize(("own", "most"), [(2.0, 2.04), (1.0, 3.0), (8.0, 12.0)])
def test_a_loss_above_that_of_the_start_has_diverged(own: float, most: float) -> None:
    """The start is a classifier of zeros, a trained or a random one, and 2 is the loss of equal outputs."""
    guard = Guard(dataclasses.replace(CONFIG, retries=1))
    guard.begin(own, 2.0)
    guard.add(0, scored(0.5, 100), {})
    assert not guard.collapse(most - 0.01, scored(0.5, 100))
    line = guard.collapse(most + 0.01, scored(0.5, 100))
    assert line == f"the training diverged: its mean loss of {most + 0.01:.4g} is higher than the start's"


def test_a_weighted_loss_is_compared_on_the_same_images(tmp_path: Path) -> None:
    """An epoch of one batch may have more images of rare classes, and so a higher loss, than the batches of the start.

    Its classifier begins at 0. At so low a learning rate, no training diverges.
    """
    config = dataclasses.replace(
        CONFIG, balance="loss", retries=1, epochs=8, batch_size=16, learning_rate=1e-9, warmup_epochs=0.0
    )
    whole = toy_dataset()
    chosen = np.concatenate([np.flatnonzero(whole.train.labels == label)[:n] for label, n in enumerate((20, 8, 2))])
    part = ImageArrays(images=whole.train.images[chosen], labels=whole.train.labels[chosen])
    torch.manual_seed(0)
    network = build_network(ARCH, 3)
    torch.nn.init.zeros_(network.classifier.weight)
    torch.nn.init.zeros_(network.classifier.bias)
    watcher = Listening()
    train(ARCH, toy_batches(config, train=part), config, tmp_path / "t", initial=network, watcher=watcher)
    assert watcher.lines == []
    losses = [float(row["train_loss"]) for row in values(tmp_path / "t")]
    assert max(losses) > 1.02 * np.mean(losses)


@needs_packages
def test_a_pretrained_network_survives_a_rate_that_wrecks_it(tmp_path: Path) -> None:
    """Its classifier begins at 0, so validation alone could not tell the first epoch from the start."""
    watcher = Listening()
    config = dataclasses.replace(
        PRESETS["finetune"], epochs=6, learning_rate=10.0, warmup_epochs=0.0, threads=1, accelerator="cpu", retries=6
    )  # fmt: skip
    batches = toy_batches(config, images=96, size=32)
    name = "efficientnet-lite0"
    source = WeightsSource(name=name, arch=named_arch(name), weights="pretrained")
    network = initial_network(source, batches, 0)
    trained = train(network.arch, batches, config, tmp_path / "t", initial=network, watcher=watcher)
    assert trained.restarts == len(watcher.lines) > 1
    assert "going back to the start" in watcher.lines[0]
    assert all(float(row["train_loss"]) < 2 for row in values(tmp_path / "t"))
    assert trained.accuracy > 0.4  # chance is 1/3


def test_a_checkpoint_of_an_earlier_version_resumes(tmp_path: Path) -> None:
    """It has no best epoch, and its rows count no restarts."""
    train(ARCH, toy_batches(), CONFIG, tmp_path / "whole")
    with pytest.raises(TrainingStopped):
        train(ARCH, toy_batches(), CONFIG, tmp_path / "t", watcher=Killing(signal.SIGTERM, STEPS + 2))
    path = tmp_path / "t" / "checkpoint.pt"
    identity = json.loads((tmp_path / "t" / "config.json").read_text())["identity"]
    state = load_checkpoint(path, identity)
    del state["guard"], state["format"]
    for row in state["rows"]:
        del row["restarts"]
    save_checkpoint(path, state)
    train(ARCH, toy_batches(), CONFIG, tmp_path / "t", resume=True)
    assert values(tmp_path / "t") == values(tmp_path / "whole")


@pytest.mark.parametrize("balance", ["sampling", "loss"])
def test_a_balanced_training_stopped_and_resumed_equals_a_whole_one(tmp_path: Path, balance: str) -> None:
    config = dataclasses.replace(CONFIG, balance=balance, retries=1)
    rare = toy_dataset()
    chosen = np.concatenate([np.flatnonzero(rare.train.labels == label)[: 30 // 3**label] for label in range(3)])
    part = ImageArrays(images=rare.train.images[chosen], labels=rare.train.labels[chosen])

    def batches() -> ArrayBatches:
        return toy_batches(config, train=part)

    train(ARCH, batches(), config, tmp_path / "whole")
    with pytest.raises(TrainingStopped):
        train(ARCH, batches(), config, tmp_path / "t", watcher=Killing(signal.SIGTERM, 4))
    train(ARCH, batches(), config, tmp_path / "t", resume=True)
    assert values(tmp_path / "t") == values(tmp_path / "whole")
    plain = dataclasses.replace(config, balance="none")
    train(ARCH, batches(), plain, tmp_path / "plain")
    assert values(tmp_path / "plain") != values(tmp_path / "whole")
