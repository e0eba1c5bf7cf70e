"""Processes of a test that begin at once, and can be sent signals: forked from the server that has imported torch and
timm (conftest.py), which a fresh interpreter takes seconds of CPU to. What they start comes from the same server.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


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
    forkserver._forkserver.ensure_running = resource_tracker.ensure_running  # type: ignore[method-assign]
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
