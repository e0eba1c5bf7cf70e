"""What loading by worker processes shares: how they are started, and what they report of images that cannot be read."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from mnas.children import ASKING, end_with
from mnas.data.cache import check_unreadable

MOST_WORKERS = 256


def loader_options(workers: int) -> dict[str, Any]:
    """Arguments of torch's DataLoader. Raises ValueError for a number of workers that cannot be."""
    if type(workers) is not int or not 0 <= workers <= MOST_WORKERS:
        raise ValueError(f"workers must be an integer from 0 to {MOST_WORKERS}, but got {workers!r}")
    return {
        "num_workers": workers,
        "worker_init_fn": _begin,
        "pin_memory": torch.cuda.is_available(),
        # the loader draws a seed for its workers, which nothing here uses: not from the training's random state
        "generator": torch.Generator(),
    }


def started(loader: DataLoader[Any]) -> Iterator[Any]:
    """`iter(loader)`, whose workers are born with signals blocked.

    A signal before a worker has said what it does with them would end it; so would SIGTERM to one of the threads that
    some libraries start anew in every forked process, if it were blocked in the main one only.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return iter(loader)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def as_it_is(batch: Any) -> Any:
    """What a worker made, not put together any further."""
    return batch


def _begin(worker: int) -> None:
    """In a new worker: end with the parent, and leave signals to it.

    Ctrl-C and cluster managers reach all processes, but a training finishes its step, and needs images for that.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with(parent.pid)
    for number in ASKING - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask") and not hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # or nobody could end it
    if hasattr(signal, "sigwaitinfo"):  # not on macOS; SIGTERM ends workers there, whoever sends it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_the_parent, args=(os.getppid(),), daemon=True).start()


def _obey_the_parent(parent: int) -> None:
    """End when the parent asks for it: multiprocessing does so at its exit, and waits for whoever does not."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


class Unreadable:
    """The images found unreadable so far, of `total`."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._reasons: dict[str, str] = {}

    def add(self, found: list[tuple[str, str]]) -> None:
        """Note (name, reason) of each. Raises ValueError once they are more than 1 % of all images."""
        if found:
            self._reasons |= dict(found)
            check_unreadable(self.found, self._total)

    @property
    def found(self) -> tuple[str, ...]:
        """Each with the reason."""
        return tuple(f"{name}: {reason}" for name, reason in self._reasons.items())
