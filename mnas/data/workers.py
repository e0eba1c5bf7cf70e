"""What loading by worker processes shares: how they are started, and what they report of images that cannot be read."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data._utils import signal_handling

from mnas.children import ASKING, MOST_WORKERS, end_with
from mnas.data.cache import check_unreadable

BATCH_S = 300.0
"""Limit for the next batch of the workers, none of which may be alive but stuck for ever."""
_SHARED_BYTES = 1 << 16
"""Smallest array that is worth a file in shared memory."""


def loader_options(workers: int) -> dict[str, Any]:
    """Arguments of torch's DataLoader. Raises ValueError for a number of workers that cannot be."""
    if type(workers) is not int or not 0 <= workers <= MOST_WORKERS:
        raise ValueError(f"workers must be an integer from 0 to {MOST_WORKERS}, but got {workers!r}")
    return {
        "batch_size": None,  # a worker makes a batch at a time
        "num_workers": workers,
        "worker_init_fn": _begin,
        "collate_fn": _handed_over,
        "pin_memory": torch.cuda.is_available(),
        # the loader draws a seed for its workers, which nothing here uses: not from the training's random state
        "generator": torch.Generator(),
    }


class Loaded(Iterator[Any]):
    """The batches of a loader's workers, which are started with signals blocked.

    A signal before a worker has said what it does with them would end it; so would SIGTERM to one of the threads that
    some libraries start anew in every forked process, if it were blocked in the main one only.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        if not hasattr(signal, "pthread_sigmask"):
            self._batches: Iterator[Any] = iter(loader)
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
        try:
            self._batches = iter(loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __next__(self) -> Any:
        """Raises RuntimeError where a worker has died, or none has made the batch within `BATCH_S`."""
        late = threading.Event()
        watch = threading.Timer(BATCH_S, self._end_workers, [late])  # torch's own limit ends where a batch is begun
        watch.daemon = True
        watch.start()
        try:
            batch = next(self._batches)
        except (RuntimeError, EOFError, OSError) as error:
            if isinstance(error, EOFError | ConnectionError):  # it died with what it was to hand over
                error = RuntimeError("DataLoader worker exited unexpectedly")
            if late.is_set():
                raise RuntimeError(f"DataLoader timed out after {BATCH_S:g} seconds") from None
            raise error
        finally:
            watch.cancel()
        return _mapped(batch, lambda value: torch.from_numpy(value) if isinstance(value, np.ndarray) else value)

    def close(self) -> None:
        """End the workers at once, whatever they are doing; the last reference to them may live on in an exception."""
        if not torch.cuda.is_available():  # where batches are pinned, a thread may be reading from them
            self._end_workers(None)
        del self._batches

    def _end_workers(self, late: threading.Event | None) -> None:
        workers = [worker for worker in getattr(self._batches, "_workers", []) if worker.is_alive()]
        if late is not None:
            late.set()
        elif workers:  # else torch takes their end for a failure
            signal_handling._remove_worker_pids(id(self._batches))  # type: ignore[attr-defined]
            self._batches._worker_pids_set = False  # type: ignore[attr-defined]
        for worker in workers:
            worker.kill()


def _handed_over(batch: Any) -> Any:
    """Return a batch as a worker hands it over: in shared memory, or where that is full through the pipe.

    Torch itself would find out only in a thread that loses the batch, for which the parent then waits for ever.
    """
    return batch if get_worker_info() is None else _mapped(batch, _shared)


def _shared(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.nbytes >= _SHARED_BYTES:
        with contextlib.suppress(RuntimeError):  # no room: containers have 64 MB of it
            return value.share_memory_()  # type: ignore[no-untyped-call]
    return value.numpy()


def _mapped(batch: Any, function: Callable[[Any], Any]) -> Any:
    """Apply `function` to everything in a batch, however it is nested."""
    if isinstance(batch, list | tuple):
        return type(batch)(_mapped(value, function) for value in batch)
    return function(batch)


def _begin(worker: int) -> None:
    """Prepare a new worker: it ends with the parent and leaves signals to it.

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

    def add(self, files: list[tuple[str, str]]) -> None:
        """Note (name, reason) of each. Raises ValueError once they are more than 1 % of all images."""
        if files:
            self._reasons |= dict(files)
            check_unreadable(self.lines, self._total)

    @property
    def lines(self) -> tuple[str, ...]:
        """Each with the reason."""
        return tuple(f"{name}: {reason}" for name, reason in self._reasons.items())
