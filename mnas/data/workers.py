"""What loading by worker processes shares: how they are started, and what they report of images that cannot be read."""

import signal
from typing import Any

import torch

from mnas.data.cache import check_unreadable

MOST_WORKERS = 256


def loader_options(workers: int) -> dict[str, Any]:
    """Arguments of torch's DataLoader. Raises ValueError for a number of workers that cannot be."""
    if type(workers) is not int or not 0 <= workers <= MOST_WORKERS:
        raise ValueError(f"workers must be an integer from 0 to {MOST_WORKERS}, but got {workers!r}")
    return {
        "num_workers": workers,
        "worker_init_fn": _leave_signals_to_the_parent,
        "pin_memory": torch.cuda.is_available(),
        # the loader draws a seed for its workers, which nothing here uses: not from the training's random state
        "generator": torch.Generator(),
    }


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches the whole group of processes, but a training finishes its step, and needs its images for that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


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
