"""Threads of one call. Their messages and results reach the caller in the caller's thread."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from mnas.latency.fleet.lease import GivenUpError

Say = Callable[[str], None]

END_S = 5.0
"""Longest wait for a thread to end after it is asked to stop."""


class Crew:
    """Starts threads, receives their results, and ends them. It calls `say` only in the thread of `hear` and `end`."""

    def __init__(self, say: Say) -> None:
        self.stop = threading.Event()
        self._say = say
        self._heard: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread; `hear` raises its exceptions."""

        def run() -> None:
            try:
                work()
            except GivenUpError:
                pass
            except BaseException as error:  # a bug must reach the caller too
                self._heard.put(("error", error))

        thread = threading.Thread(target=run, daemon=True)  # a thread that hangs must not keep the program alive
        self._threads.append(thread)
        thread.start()

    def say(self, text: str) -> None:
        """Pass a line to the caller's `say`, from any thread."""
        self._heard.put(("text", text))

    def hand(self, finding: object) -> None:
        """Pass a result to the caller's `hear`, from any thread."""
        self._heard.put(("finding", finding))

    def hear(self, timeout_s: float) -> Any:
        """Return the next result, or None after `timeout_s`. Raises what a thread raised."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                kind, what = self._heard.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return None
            if kind == "finding":
                return what
            if kind == "error":
                raise what
            self._say(what)

    def pause(self, seconds: float) -> None:
        """Sleep, in a thread of the crew. Raises GivenUpError when the crew is asked to stop."""
        if self.stop.wait(seconds):
            raise GivenUpError

    def end(self, close: Callable[[], None]) -> None:
        """Stop all threads and wait; `close` takes the devices from those that hang. It passes on the last messages."""
        self.stop.set()
        until = time.monotonic() + END_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            close()
        while not self._heard.empty():
            kind, what = self._heard.get()
            if kind == "text":
                self._say(what)
