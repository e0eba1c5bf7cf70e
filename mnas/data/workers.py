"""Worker processes of data loading: their start and end, and their reports of unreadable images."""

import contextlib
import multiprocessing
import os
import signal
import sys
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
"""Time limit for the next batch, in seconds, so that a stuck worker cannot block a training for ever."""
_SHARED_BYTES = 1 << 16
"""Smallest array, in bytes, that is worth a file in shared memory."""


def loader_options(workers: int) -> dict[str, Any]:
    """Return arguments of torch's DataLoader. Raises ValueError for an invalid number of workers."""
    if type(workers) is not int or not 0 <= workers <= MOST_WORKERS:
        raise ValueError(f"--workers must be an integer from 0 to {MOST_WORKERS}, but got {workers!r}")
    return {
        "batch_size": None,  # items are whole batches
        "num_workers": workers,
        # A process that the fork server made (a training of --top) would ask that server, which is no parent to watch.
        "multiprocessing_context": "fork" if workers and sys.platform == "linux" else None,
        "worker_init_fn": _begin,
        "collate_fn": _handed_over,
        "pin_memory": torch.cuda.is_available(),
        # The loader draws an unused seed for its workers; its own generator leaves the training's random state alone.
        "generator": torch.Generator(),
    }


class Loaded(Iterator[Any]):
    """The batches of a loader's workers, which are started with signals blocked.

    A signal would end a worker that has not installed its handlers yet. SIGTERM would also end it through one of the
    threads that some libraries start in every forked process, if only the main thread blocked it.
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
        """Return the next batch. Raises RuntimeError if a worker has died, or no batch arrives within `BATCH_S`."""
        late = threading.Event()
        watch = threading.Timer(BATCH_S, self._end_workers, [late])  # torch's limit stops once a batch begins to arrive
        watch.daemon = True
        watch.start()
        try:
            batch = next(self._batches)
        except (RuntimeError, EOFError, OSError) as error:
            if isinstance(error, EOFError | ConnectionError):  # the worker died while it handed over a batch
                error = RuntimeError("DataLoader worker exited unexpectedly")
            if late.is_set():
                raise RuntimeError(f"DataLoader timed out after {BATCH_S:g} seconds") from None
            raise error
        finally:
            watch.cancel()
        return _mapped(batch, lambda value: torch.from_numpy(value) if isinstance(value, np.ndarray) else value)

    def close(self) -> None:
        """End the workers immediately; an exception may hold the last reference to them, so deletion is not enough."""
        if not torch.cuda.is_available():  # with pinned batches, a thread may be reading from the workers
            self._end_workers(None)
        del self._batches

    def _end_workers(self, late: threading.Event | None) -> None:
        workers = [worker for worker in getattr(self._batches, "_workers", []) if worker.is_alive()]
        if late is not None:
            late.set()
        elif workers:  # otherwise torch treats their end as a failure
            signal_handling._remove_worker_pids(id(self._batches))  # type: ignore[attr-defined]
            self._batches._worker_pids_set = False  # type: ignore[attr-defined]
        for worker in workers:
            worker.kill()


def _handed_over(batch: Any) -> Any:
    """Return a batch in the form that a worker sends: in shared memory, or through the pipe if that is full.

    Torch itself would notice only in a thread that loses the batch, for which the parent would then wait for ever.
    """
    return batch if get_worker_info() is None else _mapped(batch, _shared)


def _shared(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.nbytes >= _SHARED_BYTES:
        with contextlib.suppress(RuntimeError):  # it may be full, as containers have 64 MB
            return value.share_memory_()  # type: ignore[no-untyped-call]
    return value.numpy()


def _mapped(batch: Any, function: Callable[[Any], Any]) -> Any:
    """Apply `function` to everything in a nested batch."""
    if isinstance(batch, list | tuple):
        return type(batch)(_mapped(value, function) for value in batch)
    return function(batch)


def _begin(worker: int) -> None:
    """Prepare a new worker: it ends with the parent and leaves signals to it.

    Ctrl-C and cluster managers signal all processes, but a training needs images to finish its step.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with(parent.pid)
    for number in ASKING - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask") and not hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # otherwise the parent could not end it
    if hasattr(signal, "sigwaitinfo"):  # missing on macOS, where SIGTERM from any sender ends workers
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_the_parent, args=(os.getppid(),), daemon=True).start()


def _obey_the_parent(parent: int) -> None:
    """End when the parent asks for it, as multiprocessing does at its exit; it then waits for its children."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


class Unreadable:
    """The images found unreadable so far, of `total`."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._reasons: dict[str, str] = {}

    def add(self, files: list[tuple[str, str]]) -> None:
        """Add (name, reason) of unreadable images. Raises ValueError once they exceed 1 % of all images."""
        if files:
            self._reasons |= dict(files)
            check_unreadable(self.lines, self._total)

    @property
    def lines(self) -> tuple[str, ...]:
        """Return one line per unreadable image, with the reason."""
        return tuple(f"{name}: {reason}" for name, reason in self._reasons.items())
