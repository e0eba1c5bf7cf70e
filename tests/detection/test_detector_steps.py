"""A detector's training against the same steps written out, bit for bit, on one process and on two of torchrun."""

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shapes import write_shapes
from test_detector_training import CONFIG, batches_of, metadata
from torch import nn

from mnas.data.augment import normalised, seed_of
from mnas.detection.loop import train_detector
from mnas.nn.detection.loss import detection_loss
from mnas.nn.detection.network import build_detector
from mnas.nn.detection.weights import load_detector
from mnas.nn.fast import speed_up
from mnas.train.process import training_settings
from mnas.train.recipe import optimizer_for, schedule_for
from mnas.train.scoring import moments

RAW = dataclasses.replace(CONFIG, epochs=2, ema_decay=0.0, optimizer="sgd", learning_rate=0.02, estimate_statistics=0)
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_detector_steps import RAW
from test_detector_training import batches_of, metadata
from mnas.detection.loop import train_detector
folder, out = map(Path, sys.argv[1:])
train_detector(metadata(), batches_of(folder), RAW, out, resume=True)
"""


def by_hand(folder: Path, world: int) -> tuple[nn.Module, list[float]]:
    """RAW on one process: each of `world` parts of a batch has its own statistics and loss, gradients are averaged.

    The network has the modules of the training and its number of threads, as others sum in another order. Each batch
    norm magnifies the difference: with torch's modules, two threads instead of one give maps that differ by 1e-5 after
    the stem and 7e-4 at the end in the first step, and losses that differ by 0.6 % in the second epoch.

    Returns:
        The network after the last step, and the mean loss of each epoch.
    """
    batches, record, device = batches_of(folder), metadata(), torch.device("cpu")
    torch.manual_seed(seed_of(0, RAW.seed))
    network = build_detector(record.detector, 2).to(memory_format=torch.channels_last)
    for module in network.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = RAW.bn_momentum
    speed_up(network)
    network.train()
    optimizer = optimizer_for(network, RAW, RAW.batch_size)
    steps = batches.steps(RAW.batch_size)
    schedule = schedule_for(optimizer, RAW, steps)
    mean, std = moments(record.mean, record.std, device)
    sums = torch.zeros(RAW.epochs, world)
    with training_settings(RAW.threads, device, repeatable=False):
        for done in range(RAW.epochs * steps):
            epoch, step = divmod(done, steps)
            schedule.step_update(done)
            optimizer.zero_grad()
            for rank in range(world):
                statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
                images, targets = next(batches.training(epoch, RAW.batch_size, start=step, rank=rank, world=world))
                logits, offsets = network(normalised(images, mean, std))
                loss = detection_loss(logits, offsets, targets, network.default_boxes).total
                sums[epoch, rank] += loss.detach()
                (loss / world).backward()  # exact, as `world` is a power of two
                if rank > 0:  # the first process's statistics are kept
                    for name, buffer in network.named_buffers():
                        buffer.copy_(statistics[name])
            optimizer.step()
    return network, [float(each.mean()) / steps for each in sums]


def check_same_bits(folder: Path, out: Path, world: int) -> None:
    expected, losses = by_hand(folder, world)
    with (out / "metrics.csv").open() as file:
        assert [float(row["train_loss"]) for row in csv.DictReader(file)] == losses
    network, _ = load_detector(out / "model.safetensors")
    for (name, ours), theirs in zip(network.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes")


def test_a_training_is_its_steps(folder: Path, tmp_path: Path) -> None:
    train_detector(metadata(), batches_of(folder), RAW, tmp_path / "t")
    check_same_bits(folder, tmp_path / "t", 1)


def test_statistics_are_estimated_from_training_images_before_scoring(folder: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(RAW, estimate_statistics=16)
    train_detector(metadata(), batches_of(folder), config, tmp_path / "t")
    estimated, _ = load_detector(tmp_path / "t/model.safetensors")
    expected, _ = by_hand(folder, 1)
    norms = [module for module in expected.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    expected.train()
    images, _ = next(batches_of(folder).training(RAW.epochs, 16))
    record = metadata()
    with torch.no_grad(), training_settings(RAW.threads, torch.device("cpu"), repeatable=False):
        expected(normalised(images, *moments(record.mean, record.std, torch.device("cpu"))))
    for (name, ours), theirs in zip(estimated.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)


def test_two_processes_train_as_the_halves_of_a_batch_do(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(script), str(folder), str(tmp_path / "t")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    check_same_bits(folder, tmp_path / "t", 2)
