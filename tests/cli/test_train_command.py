"""Test `mnas train` as people type it: presets and options that override them, lists, torchrun, Ctrl-C, mistakes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from started import started_mnas

from mnas.arch import Arch
from mnas.block import Block
from mnas.cli.main import COMMANDS, run
from mnas.cli.parsing import parse
from mnas.cli.train import TrainCommand, resuming
from mnas.nn.weights_info import read_weights_info
from mnas.train.presets import PRESETS

ARCH = Arch(
    blocks=(
        Block(op="sepconv", kernel=3, stride=1, filters=8, skip="none"),
        Block(op="mbconv", kernel=3, stride=2, filters=8, expansion=3),
    ),
    stem_filters=8,
    stem_stride=1,
    head_filters=32,
)
QUICK = ("--data", "digits", "--input-size", "8", "--epochs", "2", "--warmup-epochs", "0.5", "--fewest-steps", "0")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.json").write_text(ARCH.to_json())


def trained(*options) -> list[str]:
    return ["train", "tiny.json", *QUICK, *map(str, options)]


def complaint(capsys, *arguments) -> str:
    code = run([str(a) for a in arguments])
    printed = capsys.readouterr()
    assert code == 2, printed
    [line] = printed.err.strip().splitlines()
    assert line.startswith("mnas: ")
    return line


def test_a_score_no_better_than_guessing_gets_a_warning(capsys):
    draw = np.random.default_rng(0)
    for name, count in (("often", 40), ("rare", 5)):
        Path("photos", name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).save(Path("photos", name, f"{i}.png"))
    assert run(trained("--data", "photos")) == 0
    printed = capsys.readouterr().out.splitlines()
    accuracy = json.loads(Path("trained/tiny-8px/result.json").read_text())["accuracy"]
    warning = (
        f"warning: the accuracy {accuracy:.4f} on 9 images is not significantly above that of always predicting one "
        "class (0.8889)"
    )
    assert printed[-1].startswith(warning)  # on 9 images even an accuracy of 1 is not significant
    assert "majority share 88.89%" in printed[-2]


def test_from_a_name_to_weights_and_never_twice(capsys):
    assert run(trained()) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "data digits: 10 classes, images 1,151 train, 287 val, 359 test, 8 px"
    assert printed[1].startswith("tiny.json: 2 epochs of 8 steps of 128 images, peak learning rate ")
    end = printed.index("majority share: 10.10% of the val images are 1 (the accuracy of always predicting it)")
    assert printed[end - 1].split() == ["all", "10", "classes", "1,151", "287", "359", "0"]
    del printed[2 : end + 1]
    assert [line[:5] for line in printed[2:4]] == ["[1/2]", "[2/2]"]
    assert "waiting for data; trained/tiny-8px/model.safetensors" in printed[4]
    folder = Path("trained/tiny-8px")
    result = json.loads((folder / "result.json").read_text())
    assert f"validation accuracy {result['accuracy']:.2%}, test accuracy {result['test_accuracy']:.2%}" in printed[4]
    info = read_weights_info(folder / "model.safetensors")
    assert (info.arch, info.input_size, len(info.classes)) == (ARCH, 8, 10)
    before = (folder / "model.safetensors").read_bytes()
    assert "resume it with --resume, or choose another --out" in complaint(capsys, *trained())
    assert "epochs: 2 before, 3 now" in complaint(capsys, *trained("--resume", "--epochs", 3))
    assert run(trained("--resume")) == 0
    assert f"test accuracy {result['test_accuracy']:.2%}" in capsys.readouterr().out
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_preset_gives_the_defaults_and_options_win():
    def config(*options):
        arguments = ["tiny.json", "--data", "imagenet", *options]
        return parse(TrainCommand, "train", arguments).settings.config

    assert config() == PRESETS["imagenet"]
    assert config("--preset", "small") == PRESETS["small"]
    assert config("--preset=finetune") == PRESETS["finetune"]
    assert config("--weights", "timm") == PRESETS["finetune"]
    changed = config("--epochs", "7", "--dropout", "0.5", "--compile")
    assert (changed.epochs, changed.dropout, changed.compile) == (7, 0.5, True)
    assert (changed.batch_size, changed.ema_decay, changed.crop) == (4096, 0.9999, 0.875)


def test_help_shows_the_presets_values(capsys):
    assert run(["train", "--preset", "imagenet", "--help"]) == 0
    assert "(default: 350)" in " ".join(capsys.readouterr().out.split())


def test_lists_are_trained_one_after_another(capsys):
    options = ("--epochs", "1", "--input-size", "8,10", "--width-multiplier", "0.5,1")
    assert run(trained(*options)) == 0
    folders = sorted(p.name for p in Path("trained").iterdir())
    assert folders == ["tiny-10px", "tiny-8px", "tiny-x0.5-10px", "tiny-x0.5-8px"]
    small = read_weights_info(Path("trained/tiny-x0.5-8px/model.safetensors"))
    assert small.arch == ARCH.scale_width(0.5)
    (Path("trained/tiny-10px") / "result.json").unlink()
    capsys.readouterr()
    assert run(trained(*options, "--resume")) == 0  # the other three are only read


def test_finetuning_puts_on_a_new_classifier():
    assert run(trained("--epochs", 1)) == 0
    rng = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        Path("photos", name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 100, (8, 8, 3)) + 120 * label
            Image.fromarray(pixels.astype(np.uint8)).save(f"photos/{name}/{i}.png")
    weights = "trained/tiny-8px/model.safetensors"
    command = ["train", "tiny.json", "--data", "photos", "--weights", weights, "--epochs", "1", "--input-size", "8"]
    assert run([*command, "--out", "tuned", "--workers", "0"]) == 0
    info = read_weights_info(Path("tuned/tiny-8px/model.safetensors"))
    assert (info.classes, info.crop) == (("cat", "dog"), 1.0)


def test_mistakes(capsys, tmp_path):
    assert "mnas train --help" in complaint(capsys, "train")
    assert "--preset must be one of small, imagenet, finetune, but got 'tiny'" in complaint(
        capsys, "train", "mnasnet-a1", "--data", "digits", "--preset", "tiny"
    )
    assert "--learning-rate must be a number" in complaint(capsys, *trained("--learning-rate", -1))
    assert "--top needs the folder of a run" in complaint(capsys, *trained("--top", 3))
    assert "at least the output stride 32, but got 16" in complaint(capsys, "train", "mnasnet-a1", "--data", "digits")
    assert "did you mean mnasnet-a1" in complaint(capsys, "train", "mnasnet_a1", "--data", "digits")
    assert "no such folder" in complaint(capsys, "train", "mnasnet-a1", "--data", "nothing")
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save("photos/cat/1.png")
    line = complaint(capsys, "train", "tiny.json", "--data", "photos", "--input-size", "8")
    assert "mnas: --data must have images (jpg, png, ...) in each class folder, but photos/dog has none" in line
    assert not Path("trained").exists()


def test_damaged_and_foreign_checkpoints(capsys):
    assert run(trained("--epochs", 1)) == 0
    folder = Path("trained/tiny-8px")
    (folder / "result.json").unlink()
    whole = (folder / "checkpoint.pt").read_bytes()
    (folder / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    line = complaint(capsys, *trained("--epochs", 1, "--resume"))
    assert "the checkpoint trained/tiny-8px/checkpoint.pt is damaged or cut off" in line
    state = torch.load(__import__("io").BytesIO(whole), weights_only=True)
    state["identity"]["arch"] = "0" * 16
    torch.save(state, folder / "checkpoint.pt")
    line = complaint(capsys, *trained("--epochs", 1, "--resume"))
    assert (
        f"belongs to a training with other settings (arch: {'0' * 16} before, {ARCH.fingerprint} now). Use the same "
        "settings, or rename its folder to start a new training." in line
    )


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on():
    program = started_mnas(*trained("--epochs", "100"))
    lines = []
    for line in program.stdout:
        lines.append(line)
        if line.startswith("[2/100]"):
            program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (130, "")
    assert lines[-1].startswith("stopped at ")
    assert lines[-1].endswith(
        f"all progress is saved. To resume: mnas {' '.join(trained('--epochs', '100'))} --resume\n"
    )
    assert Path("trained/tiny-8px/checkpoint.pt").exists()


def make_photos(count: int = 60, damaged: int = 1) -> list[str]:
    """Make a folder of two classes, and return the arguments that train on it."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        Path("photos", name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 100, (8, 8, 3)) + 120 * label
            Image.fromarray(pixels.astype(np.uint8)).save(f"photos/{name}/{i}.png")
    for i in range(damaged):
        Path(f"photos/cat/{i}.png").write_bytes(b"no image")
    return ["train", "tiny.json", "--data", "photos", "--input-size", "8", "--fewest-steps", "0", "--threads", "1"]


@pytest.mark.parametrize("loader", ["array", "files"])
def test_unreadable_images_are_named(capsys, loader):
    command = make_photos(count=130)
    assert run([*command, "--epochs", "1", "--loader", loader, "--workers", "0"]) == 0
    printed = capsys.readouterr().out.splitlines()
    lines = [line for line in printed if line.startswith("skipped ")]
    assert len(lines) == 1
    assert lines[0].startswith("skipped 1 unreadable image: ")
    assert "cat/0.png: it is not an image" in lines[0]
    by_stat = "photos is identified by file names, sizes and modification times instead of its content"
    assert printed.count(by_stat) == (loader == "files")


@pytest.mark.slow  # two interpreters import everything
def test_a_killed_process_of_the_loader_is_one_line():
    # a separate interpreter, the parent of those processes
    command = [sys.executable, "-m", "mnas.cli.main", *make_photos(damaged=0)]
    command += ["--loader", "files", "--workers", "1", "--epochs", "10000"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in program.stdout:
        if line.startswith("[2/10000]"):
            break
    deadline = time.monotonic() + 60
    while program.poll() is None and time.monotonic() < deadline:  # a process is started for every pass
        for children in Path(f"/proc/{program.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for child in children.read_text().split():
                    os.kill(int(child), signal.SIGKILL)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 2
    [line] = errors.splitlines()
    assert line == (
        "mnas: a worker process that reads images was killed, perhaps because memory ran out; free some memory or use "
        "fewer --workers, then resume with --resume"
    )


def torchrun(*arguments: str) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*launcher, "-m", "mnas.cli.main", *arguments], capture_output=True, text=True, timeout=200, env={**os.environ}
    )


@pytest.mark.slow  # starts torchrun; tests/train/test_ddp.py has a test without it
def test_torchrun_starts_it_too_and_one_of_them_talks():
    found = torchrun(*trained("--epochs", 1))
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("[1/1]") == 1
    assert json.loads(Path("trained/tiny-8px/result.json").read_text())["epochs"] == 1


@pytest.mark.slow  # starts torchrun again
def test_under_torchrun_what_is_taken_is_said_once():
    assert run(trained("--epochs", 1)) == 0
    found = torchrun(*trained("--epochs", 1))  # only the first process can detect it
    [line] = [x for x in found.stderr.splitlines() if "mnas: " in x]
    assert "already contains a training (config.json); resume it with --resume" in line
    assert "a bug in mnas" not in found.stderr


def test_under_torchrun_the_command_to_go_on_is_torchruns(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py", "train", "tiny.json", "--data", "my photos"])
    assert resuming() == "mnas train tiny.json --data 'my photos' --resume"
    environment = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    expected = "-m mnas.cli.main train tiny.json --data 'my photos' --resume"
    assert resuming() == f"torchrun --nproc-per-node 2 {expected}"
    monkeypatch.setenv("GROUP_WORLD_SIZE", "3")
    assert resuming() == f"the same torchrun command on every machine, ending in: {expected}"


@dataclass(frozen=True, kw_only=True)
class Hungry:
    """Run a command that needs more memory than the machine has."""

    def run(self) -> None:
        torch.empty(1 << 60)


def test_out_of_memory_is_no_bug_whatever_the_command(capsys, monkeypatch):
    monkeypatch.setitem(COMMANDS, "hungry", ("tests.cli.test_train_command:Hungry", ""))
    assert "mnas: out of memory; free some, or use smaller images, smaller batches or fewer workers" in complaint(
        capsys, "hungry"
    )
