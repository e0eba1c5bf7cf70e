"""Ctrl-C, SIGTERM and SIGHUP all end a command in the same orderly way, at any moment, and within a bounded time."""

import math
import os
import signal
import threading
import time
from types import FrameType

from mnas.children import ASKING, kill_all

AGAIN_S = 5.0
"""Time in seconds in which a second signal does not interrupt saving and closing, which mostly take less."""
LEAVE_S = 20.0
"""Time limit in seconds for saving and closing. The process then kills its children and ends, even if it hangs."""


class Asked(KeyboardInterrupt):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return 128 + the signal's number, as shells count: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + int(getattr(stop, "number", signal.SIGINT))


class _Patience:
    seconds = LEAVE_S
    asked = 0
    """Number of the first signal; 0 before it."""


def heed() -> None:
    """Raise Asked if a signal has arrived already: importing extension modules can lose the handler's exception."""
    if _Patience.asked:
        raise Asked(_Patience.asked)


def closing_takes(seconds: float) -> None:
    """Allow this command to take longer than `LEAVE_S` to save and close."""
    _Patience.seconds = max(_Patience.seconds, seconds)


def listen() -> None:
    """Let the three signals raise Asked in the main thread; one that is ignored (nohup) stays ignored."""
    default = (signal.SIG_DFL, signal.default_int_handler)
    numbers = [number for number in ASKING if signal.getsignal(number) in default]
    asked_s = -math.inf

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked_s
        _Patience.asked = _Patience.asked or number
        if time.monotonic() - asked_s >= AGAIN_S:
            asked_s = time.monotonic()
            raise Asked(number)

    for number in numbers:
        signal.signal(number, ask)
    if numbers and os.name == "posix":
        _watch(frozenset(numbers))


def ignore() -> None:
    """Ignore the signals while the process ends."""
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)


def _watch(numbers: frozenset[int]) -> None:
    """End this process `LEAVE_S` after the first signal, even if the main thread never returns to Python."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_unwatched)

    def wait() -> None:
        while not (arrived := numbers & set(os.read(reader, 1))):
            pass
        time.sleep(_Patience.seconds)
        kill_all()
        os._exit(128 + next(iter(arrived)))

    threading.Thread(target=wait, daemon=True, name="ends the process").start()


def _unwatched() -> None:
    """Stop watching in a forked process, whose signals are not the parent's."""
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
