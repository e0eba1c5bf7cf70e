"""Processes of a test that begin at once, and can be sent signals: forked from the server that has imported torch and
timm (conftest.py), which a fresh interpreter takes seconds of CPU to. The servers that they start for their own
children are forked from them, for the same reason.
"""

import contextlib
import gc
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mnas import worker_server


class Started:
    """A function called in a process of its own, in this folder and environment; used as a `subprocess.Popen`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        reader, writer = multiprocessing.Pipe(duplex=False)
        with tempfile.NamedTemporaryFile(delete=False) as file:
            self._errors = Path(file.name)
        begin = (writer, str(self._errors), os.getcwd(), dict(os.environ), function, arguments)
        self._process = multiprocessing.get_context("forkserver").Process(target=_begin, args=begin)
        self._process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        reader.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        assert self._process.exitcode is not None, "it has not ended"
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that is left of what it prints, and all its errors; of one that ends."""
        printed = self.stdout.read()
        self.wait(timeout)
        errors = self._errors.read_text()
        self._errors.unlink()
        return printed, errors


def started_mnas(*arguments: str, before: Callable[[], None] | None = None) -> Started:
    """`mnas ARGUMENTS`, once `before` has been called in its process."""
    return Started(_mnas, arguments, before)


def _mnas(arguments: Sequence[str], before: Callable[[], None] | None) -> None:
    from mnas.cli.main import main

    if before is not None:
        before()
    sys.argv = ["mnas", *arguments]
    main()


def _begin(
    out: Connection,
    errors: str,
    folder: str,
    environment: dict[str, str],
    function: Callable[..., Any],
    arguments: Sequence[Any],
) -> None:
    """In the new process."""
    util.spawnv_passfds = _spawn
    resource_tracker._resource_tracker._fd = None  # its own, which complains of what a killed process leaves here
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # an earlier test may have called a command that started the server with these blocked or ignored
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(out.fileno(), 1)
    out.close()
    with open(errors, "w") as file:
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1, encoding="utf-8", closefd=False) for fd in (1, 2))
    function(*arguments)


_exec = util.spawnv_passfds


def _spawn(path: bytes, arguments: Sequence[str], passed: Sequence[int]) -> int:
    """`util.spawnv_passfds`, which forks a server of multiprocessing instead of starting an interpreter that imports.

    The server has the signals, files and first import of a fresh one.
    """
    program = arguments[-1]
    if "multiprocessing.forkserver" not in program:
        return _exec(path, arguments, passed)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # it has none, or a full or closed one
            stream.flush()
    number = os.fork()
    if number == 0:
        try:
            _serve(program, {0, 1, 2, *passed})
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    return number


def _serve(program: str, files: set[int]) -> None:
    """In the forked server, which never frees what it has from its parent, such as connections to databases."""
    gc.freeze()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for file in {int(name) for name in os.listdir("/proc/self/fd")} - files:
        with contextlib.suppress(OSError):  # the one that listed them
            os.close(file)
    resource_tracker._resource_tracker._fd = None
    importlib.reload(worker_server)
    exec(program, {})
