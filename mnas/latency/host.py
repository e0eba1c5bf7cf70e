"""This machine as a device: `script.py` runs in a child process, in which nothing else runs.

A runtime that crashes takes the child with it, and not the search.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

from mnas.latency import script
from mnas.latency.latency import UnitError
from mnas.latency.scripted import Channel, EndedError, ScriptUnit
from mnas.latency.unit import Core

RUN_AND_REMOVE = """\
import runpy, shutil, sys
try:
    runpy.run_path(sys.argv[1], run_name="__main__")
finally:
    shutil.rmtree(sys.argv[2], ignore_errors=True)
"""
"""What the child runs: it outlives a search that is killed, and leaves nothing behind."""


def host_unit(name: str = "host", core: Core = "auto") -> ScriptUnit:
    """This machine; nothing is started before the first use."""
    return ScriptUnit(name, LocalChannel, core)


class LocalChannel(Channel):
    """`script.py` as a child process; it ends with its input, so also when this process is killed.

    Args:
        program: what is run in its place (tests put a program before it that fails as devices do).
    """

    def __init__(self, program: str = script.__file__) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mnas-latency-", ignore_cleanup_errors=True)
        self._complaints = (Path(self._folder.name) / "stderr").open("w+b")
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONIOENCODING": "utf-8"}
        self._process = subprocess.Popen(
            # -P: modules beside it are not to be found under their bare names
            [sys.executable, "-P", "-c", RUN_AND_REMOVE, program, self._folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=environment,
            start_new_session=True,  # Ctrl-C is the search's
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
        if self._process.poll() is not None:  # before it was asked, so no model is to blame
            raise UnitError(self._end())
        try:
            self._requests.write(line.encode() + b"\n")
            self._requests.flush()
        except OSError:
            raise EndedError(self._end()) from None
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise UnitError(f"no answer within {timeout_s:g} s") from None
        if not answer.endswith(b"\n"):
            raise EndedError(self._end())
        return answer.decode(errors="replace").strip()

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # all who measure here are on this machine, and hold its lease

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._requests.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)  # with what it started to look at a model's memory
            self._process.kill()
            self._process.wait()
        self._complaints.close()
        self._folder.cleanup()

    def _end(self) -> str:
        """What is known of a child that has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._complaints.seek(0)
        words = self._complaints.read().decode(errors="replace").strip().splitlines()
        return f"the measuring process ended ({self._process.returncode}){': ' + words[-1] if words else ''}"


def _pass_on(source: IO[bytes], answers: "queue.SimpleQueue[bytes]") -> None:
    for line in source:
        answers.put(line)
    answers.put(b"")  # the end
