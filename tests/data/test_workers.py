"""Worker processes that read images: with little shared memory, when one dies or hangs, and at the end."""

import itertools
import os
import signal
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, get_worker_info

from mnas.data import workers
from mnas.data.workers import Loaded, loader_options

SHAPE = (8, 64, 64, 3)


class Numbered:
    """Batches filled with their number; a worker calls `does` with each."""

    def __init__(self, does=lambda number: None) -> None:
        self._does = does

    def __len__(self) -> int:
        return 12

    def __getitem__(self, number: int):
        if get_worker_info() is not None:
            self._does(number)
        return torch.full(SHAPE, number, dtype=torch.uint8), torch.tensor([number]), [("name", "reason")] * (number % 2)


def read(does=lambda number: None, count: int = 2) -> list:
    loaded = Loaded(DataLoader(Numbered(does), **loader_options(count)))
    try:
        return list(loaded)
    finally:
        loaded.close()


def check(found: list) -> None:
    assert len(found) == 12
    for number, (images, labels, unreadable) in enumerate(found):
        assert torch.equal(images, torch.full(SHAPE, number, dtype=torch.uint8))
        assert (labels.tolist(), unreadable) == ([number], [("name", "reason")] * (number % 2))


def no_room(number: int) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    torch.Tensor.share_memory_ = refuse  # in this worker only
    torch.UntypedStorage._share_fd_cpu_ = refuse


def test_batches_are_the_same_through_shared_memory_the_pipe_and_here():
    check(read())
    check(read(no_room))
    check(read(count=0))


@pytest.mark.parametrize("busy", [False, True])
def test_closing_ends_workers_at_once(busy):
    loaded = Loaded(DataLoader(Numbered(hang_at(4) if busy else lambda number: None), **loader_options(2)))
    next(loaded)
    pids = [worker.pid for worker in loaded._batches._workers]
    began = time.monotonic()
    loaded.close()
    assert time.monotonic() - began < 5  # torch waits this long for each hanging worker
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def hang_at(first: int):
    def does(number: int) -> None:
        if number >= first:
            all(itertools.repeat(True))  # never returns to Python

    return does


def test_a_worker_that_hangs_is_noticed(monkeypatch):
    monkeypatch.setattr(workers, "BATCH_S", 1.0)
    with pytest.raises(RuntimeError, match="DataLoader timed out after 1"):
        read(hang_at(4))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_a_worker_that_dies_is_noticed(number):
    def does(batch: int) -> None:
        if batch == 4:
            os.kill(os.getpid(), number)

    with pytest.raises(RuntimeError, match="DataLoader worker"):
        read(does)


def test_arrays_that_came_through_the_pipe_can_be_written_to():
    images, _, _ = read(no_room)[3]
    images += 1
    assert np.all(images.numpy() == 4)
