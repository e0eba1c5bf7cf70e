"""Two processes that torchrun starts train one detector, each on its half of every batch."""

import csv
import dataclasses
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from shapes import write_shapes
from test_detector_training import CONFIG, batches_of, metadata
from torch import nn

from mnas.data.augment import normalised, seed_of
from mnas.nn.detection.loss import detection_loss
from mnas.nn.detection.network import build_detector
from mnas.nn.detection.weights import load_detector
from mnas.train.recipe import optimizer_for, schedule_for
from mnas.train.scoring import moments

RAW = dataclasses.replace(CONFIG, epochs=1, ema_decay=0.0, optimizer="sgd", learning_rate=0.02)
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_detector_ddp import RAW
from test_detector_training import batches_of, metadata
from mnas.detection.loop import train_detector
folder, out = map(Path, sys.argv[1:])
train_detector(metadata(), batches_of(folder), RAW, out, resume=True)
"""


def by_hand(folder: Path) -> tuple[nn.Module, nn.Module, float]:
    """RAW on one process: each half of a batch has its own statistics and loss, and gradients are averaged.

    Returns:
        The network before and after, and the mean loss.
    """
    batches, record = batches_of(folder), metadata()
    torch.manual_seed(seed_of(0, RAW.seed))
    network = build_detector(record.detector, 2).to(memory_format=torch.channels_last).train()
    before = deepcopy(network)
    optimizer = optimizer_for(network, RAW, RAW.batch_size)
    steps = batches.steps(RAW.batch_size)
    schedule = schedule_for(optimizer, RAW, steps)
    mean, std = moments(record.mean, record.std, torch.device("cpu"))
    losses = []
    for step in range(steps):
        schedule.step_update(step)
        optimizer.zero_grad()
        for rank in range(2):
            images, targets = next(batches.training(0, RAW.batch_size, start=step, rank=rank, world=2))
            logits, offsets = network(normalised(images, mean, std))
            loss = detection_loss(logits, offsets, targets, network.default_boxes).total
            losses.append(loss.item())
            (loss / 2).backward()
        optimizer.step()
    return before, network, sum(losses) / len(losses)


def test_two_processes_train_as_the_halves_of_a_batch_do(tmp_path: Path) -> None:
    folder = write_shapes(tmp_path / "shapes")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(script), str(folder), str(tmp_path / "t")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    before, expected, loss = by_hand(folder)
    with (tmp_path / "t" / "metrics.csv").open() as file:
        [row] = csv.DictReader(file)
    assert float(row["train_loss"]) == pytest.approx(loss, rel=1e-4)
    network, _ = load_detector(tmp_path / "t" / "model.safetensors")
    # The weights agree less than the loss; the cause (rounding, batch norm over few pixels?) was not traced.
    parameters = [list(each.parameters()) for each in (before, network, expected)]
    ours = torch.cat([(after - start).flatten() for start, after in zip(*parameters[:2], strict=True)])
    theirs = torch.cat([(after - start).flatten() for start, after in zip(parameters[0], parameters[2], strict=True)])
    assert ours.norm() > 1e-3
    assert (ours - theirs).norm() < 0.05 * theirs.norm()
