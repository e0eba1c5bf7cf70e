"""Trainings in child processes: a failure affects no other training, and Ctrl-C reaches all."""

import multiprocessing
import os
import signal
import time
from multiprocessing import forkserver

import pytest
from toy_training import train_one

from mnas.arch import Arch
from mnas.candidate import Candidate
from mnas.shortlist.pool import Job, train_jobs

CANDIDATE = Candidate(arch=Arch.from_block_strings("r1_k3_s22_e1_i8_o8"), input_size=8)


@pytest.fixture
def started():
    """Return the running children that a test has started, without those of other tests."""
    others = set(multiprocessing.active_children())
    return lambda: set(multiprocessing.active_children()) - others


def test_one_failure_is_told_and_the_others_go_on(tmp_path, started):
    said = []
    failed = train_jobs([Job(n, CANDIDATE, tmp_path) for n in range(4)], train_one, 2, said.append)
    assert failed == {1: "diverged on purpose", 2: "its process died (killed, perhaps out of memory)"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "3"]
    assert sorted(said) == [
        "trial 0: half way",
        "trial 1 failed: diverged on purpose",
        "trial 2 failed: its process died (killed, perhaps out of memory)",
        "trial 3: half way",
    ]
    assert started() == set()


def test_they_start_in_order_and_share_the_gpus_out(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    said = []
    assert train_jobs([Job(n, CANDIDATE, tmp_path) for n in (7, 3, 5)], train_one, 1, said.append) == {}
    assert said == ["trial 7: half way", "trial 3: half way", "trial 5: half way"]
    assert {p.read_text() for p in tmp_path.iterdir()} == {"4"}  # one at a time: the first will do
    train_jobs([Job(n, CANDIDATE, tmp_path) for n in (8, 9)], train_one, 2, said.append)
    assert {tmp_path.joinpath(n).read_text() for n in "89"} == {"4", "6"}


def test_ctrl_c_stops_all_of_them_and_lets_them_save(tmp_path, started):
    folders = [tmp_path / str(n) / "slow" for n in range(2)]
    for folder in folders:
        folder.mkdir(parents=True)
    said = []

    def say(text):
        said.append(text)
        if len(said) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_jobs([Job(n, CANDIDATE, folder) for n, folder in enumerate(folders)], train_one, 2, say)
    assert started() == set()
    assert [p.name for folder in folders for p in folder.iterdir()] == ["checkpoint", "checkpoint"]


def test_a_signal_to_the_whole_group_that_we_get_late_lets_them_save_too(tmp_path):
    """The signal ends the fork server, and reaches the training before this process passes it on."""
    folder = tmp_path / "real"
    folder.mkdir()

    def say(text):
        for pid in (forkserver._forkserver._forkserver_pid, int(text.split()[-1])):
            os.kill(pid, signal.SIGTERM)
        time.sleep(1.2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_jobs([Job(0, CANDIDATE, folder)], train_one, 1, say)
    assert folder.joinpath("checkpoint").exists()
