"""Two processes that torchrun starts against one that forwards the same two halves and averages their gradients."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_distillation import taught
from torch import nn
from train_toy import ARCH, CONFIG, toy_batches, values

from mnas.data.augment import normalised, seed_of
from mnas.data.batches import Batches
from mnas.nn.network import build_network
from mnas.nn.weights import load_weights
from mnas.train.loop import train
from mnas.train.recipe import loss_of, optimizer_for, schedule_for
from mnas.train.scoring import moments

RAW = dataclasses.replace(CONFIG, epochs=2, ema_decay=0.0, estimate_statistics=0, dropout=0.2)
WRECKING = dataclasses.replace(RAW, optimizer="sgd", learning_rate=900.0, warmup_epochs=0.0, retries=10)
SCRIPT = """
import dataclasses, os, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_ddp import RAW, WRECKING
from test_distillation import taught
from train_toy import ARCH, CONFIG, Killing, toy_batches
from mnas.train.loop import train
for what in sys.argv[2:]:
    config = {{"raw": RAW, "taught": RAW, "wreck": WRECKING}}.get(what, CONFIG)
    watcher = Killing(15, 10) if what == "stop" else None  # only the first process has a watcher
    batches = taught(config, extra=20, world=2) if what == "taught" else toy_batches(config)
    folder = Path(sys.argv[1], "t" if what in ("stop", "resume") else what)
    accuracy = train(ARCH, batches, config, folder, resume=what == "resume", watcher=watcher).accuracy
    os.write(1, f"{{what}} {{accuracy}}\\n".encode())  # a single write, as two processes share the pipe
"""


def torchrun(folder: Path, *trainings: str) -> subprocess.CompletedProcess:
    """Run the trainings one after another in two processes; each prints its accuracy."""
    script = folder / "script.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(script), str(folder), *trainings]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """Three trainings by one start of torchrun, which takes longer than they do, and their folder."""
    folder = tmp_path_factory.mktemp("together")
    run = torchrun(folder, "raw", "taught", "wreck")
    assert run.returncode == 0, run.stderr
    return folder, run


def accuracies(run: subprocess.CompletedProcess, training: str) -> list[str]:
    return [line.split()[1] for line in run.stdout.splitlines() if line.split()[0] == training]


def by_hand(batches: Batches, loss_of_half: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> nn.Module:
    """RAW on one process: each half of a batch has its own statistics and dropout."""
    torch.manual_seed(seed_of(0, RAW.seed))
    network = build_network(ARCH, 3).to(memory_format=torch.channels_last).train()
    network.dropout.p = 0.2
    optimizer = optimizer_for(network, RAW, 16)
    schedule = schedule_for(optimizer, RAW, batches.steps(16))
    mean, std = moments(batches.mean, batches.std, torch.device("cpu"))
    buffers = dict(network.named_buffers())
    halves = (
        pair
        for epoch in range(2)
        for pair in zip(*(batches.training(epoch, 16, rank=rank, world=2) for rank in range(2)), strict=True)
    )
    for done, pair in enumerate(halves):
        schedule.step_update(done)
        optimizer.zero_grad()
        for rank, (images, targets) in enumerate(pair):
            before = {name: buffer.clone() for name, buffer in buffers.items()}
            torch.manual_seed(seed_of(1, RAW.seed, done, rank))
            loss = loss_of_half(network(normalised(images, mean, std)), targets)
            (loss / 2).backward()
            if rank > 0:  # the first process's statistics are kept
                for name, buffer in buffers.items():
                    buffer.copy_(before[name])
        optimizer.step()
    return network


def test_two_processes_are_one_that_averages_the_gradients_of_both_halves(
    trained: tuple[Path, subprocess.CompletedProcess], tmp_path: Path
) -> None:
    folder, run = trained
    first, second = accuracies(run, "raw")
    assert first == second
    found = load_weights(folder / "raw" / "model.safetensors").state_dict()
    expected = by_hand(toy_batches(RAW), loss_of(RAW)).state_dict()
    alone = dataclasses.replace(RAW)
    train(ARCH, toy_batches(alone), alone, tmp_path / "alone")
    other = load_weights(tmp_path / "alone" / "model.safetensors").state_dict()
    far = 0.0
    for name, tensor in expected.items():
        # sums in another order round differently: 1e-6 was observed over 12 steps
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
        far = max(far, float((other[name] - tensor).abs().max()))
    assert far > 1e-2  # batch norm over the whole batch gives other values


def test_two_processes_share_a_teacher(trained: tuple[Path, subprocess.CompletedProcess]) -> None:
    """Each has labelled and unlabelled images in every step; the teacher's part of the loss is in both."""
    folder, run = trained
    first, second = accuracies(run, "taught")
    assert first == second
    actual = load_weights(folder / "taught" / "model.safetensors").state_dict()
    batches = taught(RAW, extra=20, world=2)
    for part in zip(*(batches.training(0, 16, rank=rank, world=2) for rank in range(2)), strict=True):
        assert [int((targets[:, :3].sum(1) == 0).sum()) for _, targets in part] == [1, 1]
    for name, tensor in by_hand(batches, batches.loss).state_dict().items():
        torch.testing.assert_close(actual[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
    untaught = by_hand(toy_batches(RAW), loss_of(RAW)).state_dict()
    assert max(float((actual[name] - tensor).abs().max()) for name, tensor in untaught.items()) > 1e-2


def test_two_processes_go_back_together(trained: tuple[Path, subprocess.CompletedProcess]) -> None:
    folder, run = trained
    assert "at a quarter of the learning rate (attempt 1 of 10)" in run.stderr
    rows = values(folder / "wreck")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert int(rows[-1]["restarts"]) >= 1


@pytest.mark.slow  # starts torchrun twice
def test_two_processes_stop_together_and_go_on(tmp_path: Path) -> None:
    stopped = torchrun(tmp_path, "stop")
    assert stopped.returncode != 0
    state = torch.load(tmp_path / "t" / "checkpoint.pt", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 6)  # trained, but not scored
    resumed = torchrun(tmp_path, "resume")
    assert resumed.returncode == 0, resumed.stderr
    assert [row["epoch"] for row in values(tmp_path / "t")] == ["1", "2", "3"]
