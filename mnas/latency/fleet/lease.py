"""Exclusive use of a device: one holder at a time, among the threads, processes and commands of a user.

A lease is a lock that the operating system holds for a process, so it ends with its holder, however the holder ends.
Waiting processes queue at a second lock, the door. A holder that wants the lease again immediately queues behind them,
so two searches that share a device take turns. A note beside the lock names the holder, for messages only.
"""

import contextlib
import datetime
import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mnas.atomic import write_atomic
from mnas.readers import read_json

POLL_S = 0.05
FIRST_S, REMIND_S = 0.5, 300.0
"""Seconds until the first message about waiting (the holder has signed by then), and between further messages."""


class GivenUpError(Exception):
    """Error for a wait that was asked to stop."""


def lease_key(kind: str, address: str) -> str:
    """Return the key of one physical device, from its kind and address; without an address, it is this machine."""
    words = re.sub(r"[^A-Za-z0-9._-]", "_", address)[:40]
    return f"{kind}-{words}-{hashlib.sha256(address.encode()).hexdigest()[:8]}" if address else kind


@contextlib.contextmanager
def lease(
    folder: Path, key: str, name: str, *, say: Callable[[str], None], stop: threading.Event | None = None
) -> Iterator[None]:
    """Hold the device `key`, called `name`, while inside; wait for it without limit, and report the wait.

    A thread must not take the same lease twice, as it would wait for itself.

    Raises:
        GivenUpError: `stop` was set while waiting.
        OSError: `folder` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stop = stop or threading.Event()
    wait = _Wait(folder / f"{key}.json", name, say, stop)
    with contextlib.ExitStack() as held:
        with _lock(folder / f"{key}.door", wait):
            held.enter_context(_lock(folder / f"{key}.lock", wait))
        _sign(folder / f"{key}.json")
        wait.over()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (folder / f"{key}.json").unlink()


class _Wait:
    """Reports who holds the lease, and how long the wait took."""

    def __init__(self, note: Path, name: str, say: Callable[[str], None], stop: threading.Event) -> None:
        self._note, self._name, self._say, self._stop = note, name, say, stop
        self._began, self._next = time.monotonic(), FIRST_S

    def a_little(self) -> None:
        waited_s = time.monotonic() - self._began
        if waited_s >= self._next:
            self._say(f"waiting for {self._name}, held by {_holder(self._note)}")
            self._next = waited_s + REMIND_S
        if self._stop.wait(POLL_S):
            raise GivenUpError

    def over(self) -> None:
        if self._next > FIRST_S:
            self._say(f"{self._name} is free after {time.monotonic() - self._began:.0f} s")


@contextlib.contextmanager
def _lock(path: Path, wait: _Wait) -> Iterator[None]:
    lock = FileLock(path, thread_local=False)
    while True:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            wait.a_little()
        else:
            break
    try:
        yield
    finally:
        lock.release()


def _sign(note: Path) -> None:
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    words = ["mnas" if program == "main.py" else program, *sys.argv[1:]]
    since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    write_atomic(note, json.dumps({"pid": os.getpid(), "command": " ".join(words), "since": since}))


def _holder(note: Path) -> str:
    """Return the holder in words; the note may be missing, damaged, or left by a killed holder."""
    try:
        record = read_json(note)
        since = datetime.datetime.fromisoformat(record["since"])
        command = str(record["command"])
        short = command if len(command) <= 60 else command[:57] + "..."
        return f"pid {int(record['pid'])} ({short}) since {since:%H:%M:%S}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
