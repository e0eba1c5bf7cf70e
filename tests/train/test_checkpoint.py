"""Checkpoints that are not what they should be: one line each, and nothing in them is run."""

import io
import os
import pickle
from pathlib import Path

import pytest
import torch
from train_toy import ARCH, CONFIG, toy_batches

from mnas.train.checkpoint import load_checkpoint, save_checkpoint
from mnas.train.loop import train

STATE = {
    "identity": {"arch": "a", "epochs": 3}, "epoch": 1, "step": 2, "network": {"w": torch.arange(3.0)},
    "average": None, "optimizer": {}, "scaler": None, "loss_sum": torch.tensor(1.5), "spent": {}, "rows": [],
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "checkpoint.pt", STATE)
    return tmp_path / "checkpoint.pt"


def complaint(path: Path, identity: dict) -> str:
    with pytest.raises(ValueError, match=str(path)) as caught:
        load_checkpoint(path, identity)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip(path: Path) -> None:
    state = load_checkpoint(path, STATE["identity"])
    assert torch.equal(state["network"]["w"], STATE["network"]["w"])
    assert (state["epoch"], state["step"], float(state["loss_sum"])) == (1, 2, 1.5)


def test_another_training(path: Path) -> None:
    line = complaint(path, {"arch": "b", "epochs": 3, "mixup": 0.1})
    assert "is of another training (arch: a there, b here, mixup: None there, 0.1 here)" in line


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_cut_off(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "remove it to start from the beginning" in complaint(path, STATE["identity"])


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_code_is_not_run(path: Path, tmp_path: Path) -> None:
    for content in (pickle.dumps(Evil(tmp_path / "ran"), protocol=2), _saved(Evil(tmp_path / "ran"))):
        path.write_bytes(content)
        assert "must be one written by mnas" in complaint(path, STATE["identity"])
        assert not (tmp_path / "ran").exists()


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("value", [{"model": torch.zeros(1)}, [1, 2], {**STATE, "format": 99}], ids=str)
def test_something_else(path: Path, value: object) -> None:
    path.write_bytes(_saved(value))
    assert "must be one written by this mnas" in complaint(path, STATE["identity"])


def test_no_archive_at_all(path: Path) -> None:
    path.write_bytes(b"\x00" * 5000)
    complaint(path, STATE["identity"])
    path.write_text("not a checkpoint")
    complaint(path, STATE["identity"])


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    train(ARCH, toy_batches(), CONFIG, folder)
    (folder / "result.json").unlink()
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    del state["format"]
    save_checkpoint(folder / "checkpoint.pt", {**state, "network": {"w": torch.zeros(3)}})
    with pytest.raises(ValueError, match="must fit the training that it is of") as caught:
        train(ARCH, toy_batches(), CONFIG, folder, resume=True)
    assert "\n" not in str(caught.value)
