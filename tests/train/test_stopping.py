"""A signal ends a training immediately while it waits, decodes or scores; it is saved, and resumes to the same end."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from train_toy import ARCH, CONFIG, toy_dataset, values

from mnas.data.arrays import ArrayBatches
from mnas.train import start, training
from mnas.train.loop import train
from mnas.train.process import StopNow, TrainingStopped, stop_requests

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _hangup() -> Iterator[None]:
    """Restore the signal's default, as nohup ignores it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Stalled(ArrayBatches):
    """Batches of which number `at` of training or scoring never comes, while a signal does."""

    def __init__(self, where: str, at: int, number: int) -> None:
        super().__init__(toy_dataset(), CONFIG.variation(), CONFIG.seed)
        self._where, self._left, self._number = where, at, number

    def training(self, *arguments, **options) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self._until("training", super().training(*arguments, **options))

    def scoring(self, *arguments) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self._until("scoring", super().scoring(*arguments))

    def _until(self, where: str, batches: Iterator) -> Iterator:
        for batch in batches:
            if where == self._where:
                self._left -= 1
                if self._left < 0:
                    stall(self._number)
            yield batch


def stall(number: int) -> None:
    threading.Timer(0.1, os.kill, [os.getpid(), number]).start()
    time.sleep(60)
    raise AssertionError("nobody came")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "whole"
    train(ARCH, ArrayBatches(toy_dataset(), CONFIG.variation(), CONFIG.seed), CONFIG, folder)
    return folder


def stopped(folder: Path, batches: ArrayBatches) -> TrainingStopped:
    began = time.monotonic()
    with pytest.raises(TrainingStopped) as stop:
        train(ARCH, batches, CONFIG, folder, resume=True)
    assert time.monotonic() - began < 30
    return stop.value


def test_where_it_waits_for_images_it_is_saved_and_goes_on(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "t"
    # the second resumes the first; the third reaches the images from which statistics are estimated
    for number, at, where in zip(
        SIGNALS, (0, 3, 3), ("epoch 1 of 3, step 0 of 6", "epoch 1 of 3, step 3 of 6", "scoring"), strict=True
    ):
        stop = stopped(folder, Stalled("training", at, number))
        assert (stop.code, stop.where) == (128 + number, where)
    scored = stopped(folder, Stalled("scoring", 1, signal.SIGHUP))
    assert (scored.code, scored.where) == (129, "scoring")
    train(ARCH, ArrayBatches(toy_dataset(), CONFIG.variation(), CONFIG.seed), CONFIG, folder, resume=True)
    assert values(finished) == values(folder)
    assert (finished / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_before_the_first_step_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "build_network", lambda *_: stall(signal.SIGTERM))
    stop = stopped(tmp_path / "t", ArrayBatches(toy_dataset(), CONFIG.variation(), CONFIG.seed))
    assert (stop.code, stop.where) == (143, "the start")


def test_while_the_first_step_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.Training, "_update", lambda *_: stall(signal.SIGTERM))
    stop = stopped(tmp_path / "t", ArrayBatches(toy_dataset(), CONFIG.variation(), CONFIG.seed))
    assert (stop.code, stop.where) == (143, "epoch 1 of 3, step 0 of 6")


def test_a_signal_raises_only_where_nothing_is_being_changed() -> None:
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number == signal.SIGHUP
        with stop.at_once(False):
            pass
        with pytest.raises(StopNow), stop.at_once():
            raise AssertionError("it came before")
    with stop_requests() as stop, pytest.raises(StopNow), stop.at_once():
        stall(signal.SIGTERM)
