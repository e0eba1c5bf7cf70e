"""Short trainings learn, repeat bit for bit, resume where they stopped, and overwrite nothing."""

import dataclasses
import errno
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from started import Started
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_toy import ARCH, CONFIG, STEPS, Killing, print_starts, toy_batches, toy_dataset, values

from mnas.data.arrays import ArrayBatches
from mnas.data.dataset import ImageArrays
from mnas.nn.network import build_network
from mnas.nn.weights import load_weights
from mnas.nn.weights_info import read_weights_info
from mnas.train.loop import train
from mnas.train.process import TrainingStopped, stop_requests
from mnas.train.scoring import TrainingError, moments, score
from mnas.train.watch import TrainWatcher


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an undisturbed training."""
    folder = tmp_path_factory.mktemp("trained") / "whole"
    train(ARCH, toy_batches(), CONFIG, folder)
    return folder


def starts(folder: Path, *how: str) -> list[int]:
    """Return the exit codes of processes that start one after another (see train_toy.py)."""
    printed, errors = Started(print_starts, folder, *how).communicate(timeout=200)
    assert printed, errors
    return json.loads(printed)


def equal(folder: Path, other: Path) -> bool:
    assert values(folder) == values(other)
    return (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_what_a_training_leaves(finished: Path) -> None:
    names = {p.name for p in finished.iterdir()} - {".lock"}
    assert names == {
        "config.json",
        "checkpoint.pt",
        "metrics.csv",
        "model.safetensors",
        "report.html",
        "result.json",
        "tensorboard",
    }
    result = json.loads((finished / "result.json").read_text())
    rows = values(finished)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["steps"] for row in rows] == ["6", "12", "18"]
    assert float(rows[-1]["val_accuracy"]) == result["accuracy"]
    info = read_weights_info(finished / "model.safetensors")
    assert (info.arch, info.accuracy, info.crop) == (ARCH, result["accuracy"], 1.0)
    network = load_weights(finished / "model.safetensors", 3)
    batches = toy_batches()
    mean_std = moments(info.mean, info.std, torch.device("cpu"))
    assert score(network, batches.scoring("val", 7), *mean_std).accuracy == result["accuracy"]
    assert score(network, batches.scoring("test", 7), *mean_std).accuracy == result["test_accuracy"]
    board = EventAccumulator(str(finished / "tensorboard")).Reload()
    assert [e.step for e in board.Scalars("val_accuracy")] == [1, 2, 3]
    found = [e.value for e in board.Scalars("train_loss")]
    assert found == pytest.approx([float(row["train_loss"]) for row in rows])


def test_a_longer_training_learns(tmp_path: Path) -> None:
    """Chance is 1/3; with the seeds tried, 20 epochs gave 0.96 and more."""
    config = dataclasses.replace(CONFIG, epochs=20)
    trained = train(ARCH, toy_batches(config), config, tmp_path / "t")
    assert trained.accuracy > 0.8
    assert trained.test_accuracy is not None
    assert trained.test_accuracy > 0.8


def test_the_same_seed_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    train(ARCH, toy_batches(), CONFIG, tmp_path / "again")
    assert equal(finished, tmp_path / "again")
    other = dataclasses.replace(CONFIG, seed=1)
    train(ARCH, toy_batches(other), other, tmp_path / "other")
    assert values(finished) != values(tmp_path / "other")


def test_test_images_play_no_part(finished: Path, tmp_path: Path) -> None:
    trained = train(ARCH, toy_batches(test=None), CONFIG, tmp_path / "t")
    assert trained.test_accuracy is None
    assert equal(finished, tmp_path / "t")


def test_stopped_by_sigterm_and_resumed_equals_uninterrupted(finished: Path, tmp_path: Path) -> None:
    """Stopped in the first step, in an epoch's last one (during scoring), in the middle, and in the last of all."""
    folder = tmp_path / "t"
    steps = (1, STEPS - 1, 3, 2 * STEPS - 3)
    assert starts(folder, *(f"stop{step}" for step in steps), "run") == [143] * 4 + [0]
    assert equal(finished, folder)


def test_killed_at_any_moment_and_resumed_equals_uninterrupted(finished: Path, tmp_path: Path) -> None:
    """Stopped before the first checkpoint, in the second and third epochs, and while the last one is scored."""
    folder = tmp_path / "t"
    steps = (3, STEPS + 2, STEPS + 1, STEPS)
    assert starts(folder, *(f"die{step}" for step in steps)) == [-signal.SIGKILL] * 4
    assert [row["epoch"] for row in values(folder)] == ["1", "2"]
    assert starts(folder, "run") == [0]
    assert equal(finished, folder)
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [e.step for e in board.Scalars("val_accuracy")] == [1, 2, 3]


def test_killed_after_the_last_epoch_only_the_end_is_done_again(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "t"
    train(ARCH, toy_batches(), CONFIG, folder)
    times = (folder / "metrics.csv").read_text()
    (folder / "result.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is not the result of a training .*; remove it, and use --resume"):
        train(ARCH, toy_batches(), CONFIG, folder, resume=True)
    (folder / "result.json").unlink()
    (folder / "model.safetensors").unlink()
    train(ARCH, toy_batches(), CONFIG, folder, resume=True)
    assert (folder / "metrics.csv").read_text() == times
    assert equal(finished, folder)


def test_the_same_signal_twice_at_once_is_one_and_a_later_one_ends_it() -> None:
    """torchrun passes on the Ctrl-C that its processes have already received from the terminal."""
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == signal.SIGINT
        time.sleep(1.05)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "changes",
    [
        {"mixup": 0.2, "cutmix": 1.0, "dropout": 0.3, "random_erasing": 0.5, "augmentation": "inception"},
        {"optimizer": "sgd", "ema_decay": 0.0, "estimate_statistics": 0, "schedule": "step", "checkpoint_every": 2},
    ],
)
def test_every_part_of_the_recipe_resumes(tmp_path: Path, changes: dict) -> None:
    config = dataclasses.replace(CONFIG, epochs=2, **changes)
    train(ARCH, toy_batches(config), config, tmp_path / "whole")
    for step in (2, STEPS):
        watcher = Killing(signal.SIGINT, step)
        with pytest.raises(TrainingStopped) as stopped:
            train(ARCH, toy_batches(config), config, tmp_path / "t", resume=True, watcher=watcher)
        assert stopped.value.code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train(ARCH, toy_batches(config), config, tmp_path / "t", resume=True)
    assert equal(tmp_path / "whole", tmp_path / "t")


def test_a_finished_training_is_only_read(finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    trained = train(ARCH, toy_batches(), CONFIG, finished, resume=True)
    assert trained.weights == finished / "model.safetensors"
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.name != ".lock"} == {
        p: t for p, t in before.items() if p.name != ".lock"
    }


def test_nothing_is_overwritten(finished: Path, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    for resume, changes, words in (
        (False, {}, "already contains a training .config.json.; resume it with --resume, or choose another --out"),
        (
            True,
            {"epochs": 4},
            "contains a training with other settings .epochs: 3 before, 4 now.. Use .* rename that folder",
        ),
        (True, {"mixup": 0.5}, "mixup: 0.0 before, 0.5 now"),
    ):
        config = dataclasses.replace(CONFIG, **changes)
        with pytest.raises(ValueError, match=words) as caught:
            train(ARCH, toy_batches(config), config, finished, resume=resume)
        assert "\n" not in str(caught.value)
    wider = ARCH.scale_width(2)
    with pytest.raises(ValueError, match=f"arch: {ARCH.fingerprint} before, {wider.fingerprint} now"):
        train(wider, toy_batches(), CONFIG, finished, resume=True)
    with pytest.raises(ValueError, match="data: 0123456789abcdef before, f now"):
        train(ARCH, toy_batches(fingerprint="f"), CONFIG, finished, resume=True)
    with pytest.raises(ValueError, match="initial weights: fresh before"):
        train(ARCH, toy_batches(), CONFIG, finished, resume=True, initial=build_network(ARCH, 3))
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == before
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    for resume in (False, True):
        with pytest.raises(ValueError, match="rename that folder to start a new" if resume else "choose another --out"):
            train(ARCH, toy_batches(), CONFIG, tmp_path, resume=resume)
    assert (tmp_path / "model.safetensors").read_bytes() == b"mine"


def test_a_folder_is_one_process_at_a_time(tmp_path: Path) -> None:
    class Second(TrainWatcher):
        def step(self, progress):
            if progress.step == 2 and progress.epoch == 1:
                with pytest.raises(ValueError, match="another process is training in"):
                    train(ARCH, toy_batches(), CONFIG, tmp_path / "t", resume=True)

        def epoch(self, row):
            pass

    train(ARCH, toy_batches(), CONFIG, tmp_path / "t", watcher=Second())


def test_other_threads_and_checkpoints_may_go_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped):
        train(ARCH, toy_batches(), CONFIG, tmp_path / "t", watcher=Killing(signal.SIGTERM, 2))
    config = dataclasses.replace(CONFIG, threads="auto", checkpoint_every=3)
    assert train(ARCH, toy_batches(), config, tmp_path / "t", resume=True).epochs == 3


def test_initial_weights_are_where_it_starts(tmp_path: Path) -> None:
    torch.manual_seed(3)
    initial = build_network(ARCH, 3)
    before = {k: v.clone() for k, v in initial.state_dict().items()}
    config = dataclasses.replace(CONFIG, epochs=1, learning_rate=1e-9, ema_decay=0.0)
    train(ARCH, toy_batches(config), config, tmp_path / "t", initial=initial)
    assert all(torch.equal(initial.state_dict()[name], value) for name, value in before.items())
    kept = load_weights(tmp_path / "t" / "model.safetensors")
    for name, parameter in kept.named_parameters():
        torch.testing.assert_close(parameter, before[name], atol=1e-6, rtol=0)
    with pytest.raises(
        ValueError, match=r"must have the architecture .* and 3 classes, but they have .* and 4 classes"
    ):
        train(ARCH, toy_batches(), CONFIG, tmp_path / "u", initial=build_network(ARCH, 4))


def test_a_training_that_diverges_says_where_and_what_to_do(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, learning_rate=1e3, warmup_epochs=0)
    words = r"finite by step \d of epoch \d; use a lower --learning-rate \(now 1000\)"
    with pytest.raises(TrainingError, match=words):
        train(ARCH, toy_batches(std=(1.2e-38,) * 3), config, tmp_path / "t")
    assert not (tmp_path / "t" / "model.safetensors").exists()
    assert train(ARCH, toy_batches(), CONFIG, tmp_path / "t").epochs == 3  # the corrected command


class Hungry(ArrayBatches):
    """Batches that need more memory than the machine has in the given epoch."""

    def __init__(self, epoch: int, take) -> None:
        super().__init__(toy_dataset(), CONFIG.variation(), CONFIG.seed)
        self.epoch, self.take = epoch, take

    def training(self, epoch, batch_size, **options):
        if epoch == self.epoch:
            self.take()
        return super().training(epoch, batch_size, **options)


@pytest.mark.parametrize("take", [lambda: torch.empty(1 << 60), lambda: bytearray(1 << 60)], ids=["torch", "python"])
def test_out_of_memory_says_what_to_do(tmp_path: Path, take) -> None:
    folder = tmp_path / "t"
    expected = "out of memory at 16 images per step; free some memory, or use a smaller --batch-size"
    with pytest.raises(TrainingError) as caught:
        train(ARCH, Hungry(0, take), CONFIG, folder)
    assert str(caught.value) == expected
    smaller = dataclasses.replace(CONFIG, batch_size=8)
    with pytest.raises(TrainingError) as caught:  # without a checkpoint, the corrected command starts again
        train(ARCH, Hungry(1, take), smaller, folder)
    assert str(caught.value) == f"{expected.replace('16', '8')}, and rename {folder}, which contains this training"
    assert train(ARCH, toy_batches(), smaller, folder, resume=True).epochs == 3


def test_weights_that_fail_on_the_test_images_are_not_kept(tmp_path: Path) -> None:
    """Only the bright images of the test part overflow."""
    dark = ImageArrays(images=np.zeros((100, 8, 8, 3), np.uint8), labels=np.arange(100) % 3)
    bright = ImageArrays(images=np.full((20, 8, 8, 3), 255, np.uint8), labels=np.arange(20) % 3)
    batches = toy_batches(train=dark, val=dark, test=bright, mean=(0.0,) * 3, std=(1.2e-38,) * 3)
    with pytest.raises(TrainingError, match="outputs are not finite; use a lower --learning-rate"):
        train(ARCH, batches, dataclasses.replace(CONFIG, epochs=1), tmp_path / "t")
    assert not (tmp_path / "t" / "model.safetensors").exists()
    assert not (tmp_path / "t" / "result.json").exists()


def test_too_small_images_and_batches(tmp_path: Path) -> None:
    deep = dataclasses.replace(ARCH, blocks=ARCH.blocks + 3 * (dataclasses.replace(ARCH.blocks[1], layers=1),))
    with pytest.raises(ValueError, match="--input-size must be at least the output stride 16, but got 8"):
        train(deep, toy_batches(), CONFIG, tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no GPU")
def test_cuda_that_is_not_there_has_its_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--accelerator cuda needs a GPU.*use cpu or auto"):
        train(ARCH, toy_batches(), dataclasses.replace(CONFIG, accelerator="cuda"), tmp_path / "t")


def test_the_process_is_left_as_it_was(finished: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    expected, threads = (torch.rand(1), np.random.rand()), torch.get_num_threads()
    torch.manual_seed(1)
    np.random.seed(1)
    config = dataclasses.replace(CONFIG, epochs=1, mixup=0.2)
    train(ARCH, toy_batches(config), config, tmp_path / "t")
    assert (torch.rand(1), np.random.rand()) == expected
    assert torch.get_num_threads() == threads


def test_a_full_disk_is_an_error_and_the_last_checkpoint_survives(finished: Path, tmp_path: Path) -> None:
    """A limit on file size stops the next checkpoint, like a full disk."""
    folder = tmp_path / "t"
    assert starts(folder, "stop3", "full") == [143, errno.EFBIG]
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert (state["epoch"], state["step"]) == (0, 3)
    assert [p.name for p in folder.iterdir() if p.name.endswith(".tmp")] == []
    assert starts(folder, "run") == [0]
    assert equal(finished, folder)


def test_batches_of_two_or_more(tmp_path: Path) -> None:
    tiny = ArrayBatches(toy_dataset(images=3), CONFIG.variation(), 0)
    assert train(ARCH, tiny, CONFIG, tmp_path / "t").epochs == 3
    mixing = dataclasses.replace(CONFIG, mixup=0.1)
    with pytest.raises(ValueError, match="--batch-size must be a multiple of the number of processes"):
        train(ARCH, tiny, mixing, tmp_path / "u")
    assert (
        train(ARCH, tiny, CONFIG, tmp_path / "u").epochs == 3
    )  # rejected before its first step, so the folder is free
