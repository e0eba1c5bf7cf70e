"""This machine as a device: `script.py` runs in a child process.

A runtime that crashes ends the child, and not the search.
"""

import contextlib
import os
import queue
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from mnas.children import end, spawn
from mnas.latency.devices.scripted import Channel, EndedError, OverdueError, ScriptUnit
from mnas.latency.latency import UnitError
from mnas.latency.onboard import script
from mnas.latency.onboard.keeper import sweep
from mnas.latency.unit import Core

if sys.platform != "win32":
    import fcntl

PREFIX = "mnas-latency-"
"""Prefix of the folder's name, in the system's folder for temporary files."""
_CLOSED = "the measuring process was closed"


def host_unit(
    name: str = "host", address: str = "", *, core: Core = "auto", say: Callable[[str], None] = print
) -> ScriptUnit:
    """Return this machine as a device; nothing starts before the first use.

    The function does not use `address` and `say`, which all openers take.
    """
    assert not address
    return ScriptUnit(name, LocalChannel, core)


class LocalChannel(Channel):
    """`script.py` as a child process, which ends with this one.

    Args:
        program: program to run instead; tests give one that wraps `script.py` and fails as devices do.
    """

    def __init__(self, program: str = script.__file__) -> None:
        if sys.platform != "win32":
            sweep(PREFIX)
        self._folder = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
        self._alive = _locked(self._folder.name)
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._process = spawn(
            program, errors=self._complaints, environment={"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONIOENCODING": "utf-8"}
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(self._process.stdout, self._answers), daemon=True).start()

    def put(self, name: str, content: bytes) -> str:
        path = Path(self._folder.name) / name
        try:
            path.write_bytes(content)
        except OSError as error:
            raise UnitError(f"{path} cannot be written: {error.strerror}") from None
        return str(path)

    def remove(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)

    def ask(self, line: str, timeout_s: float) -> str:
        if self._process.poll() is not None:  # the child ended before the request, so no model is to blame
            raise UnitError(self._end())
        try:
            self._requests.write(line.encode() + b"\n")
            self._requests.flush()
        except OSError:
            raise self._ended() from None
        except ValueError:  # another thread has closed it, as the search is stopping
            raise UnitError(_CLOSED) from None
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise UnitError(f"the measuring process did not answer within {timeout_s:g} s") from None
        if not answer.endswith(b"\n"):
            raise self._ended()
        return answer.decode(errors="replace").strip()

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # all users of this device are on this machine, and hold its lease

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._requests.close()
        end(self._process)
        self._complaints.close()
        self._folder.cleanup()
        if self._alive is not None:
            os.close(self._alive)
            self._alive = None

    def _ended(self) -> EndedError:
        words = self._end()
        limits = () if sys.platform == "win32" else (-signal.SIGALRM, -signal.SIGXCPU)
        return (OverdueError if self._process.returncode in limits else EndedError)(words)

    def _end(self) -> str:
        """Return how the child ended, with the last line that it printed."""
        end(self._process, 5)
        try:
            self._complaints.seek(0)
            words = self._complaints.read().decode(errors="replace").strip().splitlines()
        except ValueError:
            return _CLOSED
        last = f": {words[-1]}" if words else ""
        return f"the measuring process ended with status {self._process.returncode}{last}"


def _pass_on(source: IO[bytes], answers: "queue.SimpleQueue[bytes]") -> None:
    for line in source:
        answers.put(line)
    answers.put(b"")  # the end


def _locked(folder: str) -> int | None:
    """Return a descriptor that holds the folder's lock, which shows other processes that it is in use."""
    if sys.platform == "win32":
        return None
    alive = os.open(folder, os.O_RDONLY)
    fcntl.flock(alive, fcntl.LOCK_EX)
    return alive
