"""Settings of the process that a training changes and restores at its end."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal

import torch

from mnas.children import ASKING
from mnas.train.memory import kept_pages

STOPPING_S = 60.0
"""Time limit in seconds for a training to finish its step and write its checkpoint after a request to stop."""
_SAME_S = 1.0


@contextmanager
def training_settings(threads: int | Literal["auto"], device: torch.device, *, repeatable: bool) -> Iterator[None]:
    """Set threads, cuDNN's algorithms, malloc and flushing of denormals; restore them and the random state at the end.

    Dead channels leave statistics and momenta that fade through the denormal numbers, on which some processors are
    slow: without them training takes four fifths of the time (digits at 12 px, width 0.25, one core of an Intel Xeon).

    Args:
        repeatable: on a GPU, use algorithms that repeat bit for bit, instead of the fastest.
    """
    before = torch.get_num_threads()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        stack.enter_context(
            torch.backends.cudnn.flags(enabled=True, deterministic=repeatable, benchmark=not repeatable)
        )
        stack.enter_context(kept_pages())
        stack.callback(torch.set_num_threads, before)
        if torch.set_flush_denormal(True):  # False on processors without this mode
            stack.callback(torch.set_flush_denormal, False)
        if threads != "auto":
            torch.set_num_threads(threads)
        yield


class TrainingStopped(SystemExit):
    """A signal stopped the training, and everything is saved; ends the process with 128 + the signal's number."""

    def __init__(self, number: int, where: str) -> None:
        super().__init__(128 + number)
        self.where = where
        """Position of the stop: `epoch 3 of 30, step 17 of 312`."""


class StopNow(BaseException):
    """A signal arrived at a moment when the training changed nothing."""


@dataclass
class StopRequest:
    """A request to end the training."""

    number: int = 0
    """Number of the signal; 0 without a request."""
    _at_once: bool = False

    @contextmanager
    def at_once(self, possible: bool = True) -> Iterator[None]:
        """Let a signal raise StopNow immediately; raise it at the start if a signal has arrived before."""
        self._at_once = possible
        try:
            if possible and self.number:
                raise StopNow
            yield
        finally:
            self._at_once = False

    def ask(self, number: int) -> None:
        """Record a signal."""
        self.number = number
        if self._at_once:
            self._at_once = False  # once is enough
            raise StopNow


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into a request; a later one has its previous effect.

    A signal within a second of the first counts as the same one: Ctrl-C and cluster managers signal all processes of a
    group, and torchrun passes on what it gets. In a child of multiprocessing (`mnas train RUN --top`) all later signals
    count as the first; its parent, which may pass the signal on late, kills a child that takes too long. An ignored
    signal stays ignored, and only the main thread receives signals.
    """
    has_parent = multiprocessing.parent_process() is not None
    request = StopRequest()
    before: dict[int, Any] = {}
    first_s = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first_s
        if not request.number:
            first_s = time.monotonic()
            request.ask(number)
        elif not has_parent and time.monotonic() - first_s > _SAME_S:
            signal.signal(number, before[number])
            os.kill(os.getpid(), number)

    if threading.current_thread() is threading.main_thread():
        for number in ASKING:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.getsignal(number)
                signal.signal(number, handle)
    try:
        yield request
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
