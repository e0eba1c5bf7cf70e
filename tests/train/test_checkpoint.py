"""Damaged and foreign checkpoints: one line each, and no code in them is executed."""

import io
import os
import pickle
import shutil
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
    assert "belongs to a training with other settings (arch: a before, b now, mixup: None before, 0.1 now)" in line


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
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
        assert "is not a checkpoint of mnas" in complaint(path, STATE["identity"])
        assert not (tmp_path / "ran").exists()


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("value", [{"model": torch.zeros(1)}, [1, 2], {**STATE, "format": 99}], ids=str)
def test_something_else(path: Path, value: object) -> None:
    path.write_bytes(_saved(value))
    assert "is not a checkpoint of this version of mnas" in complaint(path, STATE["identity"])


def test_no_archive_at_all(path: Path) -> None:
    path.write_bytes(b"\x00" * 5000)
    complaint(path, STATE["identity"])
    path.write_text("not a checkpoint")
    complaint(path, STATE["identity"])


@pytest.mark.parametrize("bit", range(8))
def test_one_bit_that_has_changed(path: Path, bit: int) -> None:
    """A changed bit anywhere before the digest is found; torch alone reads most of these files as other weights."""
    whole = path.read_bytes()
    for at in range(bit, len(whole) - 200, 29):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        assert "is damaged or cut off" in complaint(path, STATE["identity"])


def test_one_without_a_digest_is_read(path: Path) -> None:
    torch.save(torch.load(path, weights_only=True), path)
    assert load_checkpoint(path, STATE["identity"])["epoch"] == 1


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "t"
    train(ARCH, toy_batches(), CONFIG, folder)
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.update(network={"w": torch.zeros(3)}), "Missing key"),
        (lambda s: s.update(average=None), "does not fit its training"),
        (lambda s: s.update(epoch=4), "epoch 4 of 3"),
        (lambda s: s.update(epoch=-1), "epoch -1 of 3"),
        (lambda s: s.update(epoch="2"), "epoch '2' of 3"),
        (lambda s: s.update(step=2), "step 2 of 6 in epoch 4 of 3"),
        (lambda s: s.update(epoch=2, step=7), "step 7 of 6 in epoch 3 of 3"),
        (lambda s: s.update(epoch=2, step=True), "step True"),
        (lambda s: s.update(rows=[]), "metrics of 0 epochs after 3"),
        (lambda s: s["rows"][1].pop("val_loss"), "val_loss"),
        (lambda s: s["rows"][1].update(val_loss="low"), "its metrics are not numbers"),
        (lambda s: s.update(rows=7), "does not fit its training"),
        (lambda s: s.update(spent={}), "its times are {}"),
        (lambda s: s.update(spent={"training": "long", "waiting": 0.0}), "its times are"),
        (lambda s: s.update(loss_sum=torch.zeros(3)), "its sum of losses is not a number"),
        (lambda s: s.update(loss_sum=0), "does not fit its training"),
        (lambda s: s.update(optimizer={}), "does not fit its training"),
        (
            lambda s: s["optimizer"]["state"][0].update({n: torch.zeros(2) for n in s["optimizer"]["state"][0]}),
            "its optimizer has tensors of other shapes",
        ),
    ],
)
def test_states_that_cannot_be(finished: Path, tmp_path: Path, change, said: str) -> None:
    folder = tmp_path / "t"
    shutil.copytree(finished, folder)
    (folder / "result.json").unlink()
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    del state["format"]
    change(state)
    save_checkpoint(folder / "checkpoint.pt", state)
    with pytest.raises(ValueError, match="does not fit its training") as caught:
        train(ARCH, toy_batches(), CONFIG, folder, resume=True)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
