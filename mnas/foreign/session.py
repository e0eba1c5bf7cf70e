"""Run a model file in a child process: a damaged or hostile file can crash the child, but not this process.

Files written by mnas run in the same way, because the author of a file is unknown before it is read.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from mnas.children import end, kill, spawn
from mnas.foreign import served
from mnas.foreign.limits import require_threads_here
from mnas.foreign.operators import explained
from mnas.foreign.served import Array, printable

Runtime = Literal["litert", "onnx", "executorch"]
TITLES: dict[Runtime, str] = {"litert": "LiteRT", "onnx": "ONNX Runtime", "executorch": "ExecuTorch"}

OPEN_S = 120.0
"""Time limit for starting the runtime, loading a file, and preparing it for a shape, in seconds."""
RUN_S, IMAGE_S = 60.0, 15.0
"""Time limits for a batch of one image, and for each further image before one is timed, in seconds."""
TIMES = 20
"""Limit for further images, as a multiple of the time per image so far."""
MOST_BYTES = 1 << 22
"""Largest message, in bytes, so that neither side stores all inputs."""
_CHUNK_S = 2.0


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output of a model."""

    name: str
    shape: tuple[int | None, ...]
    """Size of each dimension; None: any size."""
    dtype: str
    """NumPy's type string (`<f4`), or the runtime's name of a type that mnas does not support."""
    scale: float
    """Scale of quantized numbers: q stands for scale * (q - zero_point). 0 if numbers are not quantized."""
    zero_point: int


class ForeignSession:
    """An open model file. It is thread-safe, one call at a time; a forked process opens it again.

    Raises:
        ImportError: the runtime is not installed.
        ValueError: the file cannot be loaded or run, takes too long, or crashes its process; one line that names it.
            Every later use of a session whose process has ended raises the same line.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __init__(self, runtime: Runtime, path: Path, threads: int) -> None:
        require_threads_here("threads", threads)
        self.runtime, self.name = runtime, str(path)
        self._path, self._threads = str(path.resolve()), threads
        self._shape: tuple[int, ...] | None = None
        self._image_s: float | None = None
        self._lock = threading.RLock()
        self._child: _Child | None = None
        self._over: str | None = None
        self._connected()

    def resize(self, shape: Sequence[int]) -> None:
        """Prepare the model for inputs of this shape."""
        with self._lock:
            self._shape = tuple(shape)
            self._prepare()

    def run(self, values: Array, batch: int, outputs: int, *, every: bool = False) -> Array:
        """Return the first output (N, outputs) for `values` (N, ...), in batches of `batch`; N is a multiple of it.

        Args:
            every: whether to return all outputs, one after the other; those of several are float32.
        """
        done: list[Array] = [np.empty((0, outputs), np.float32)] if not len(values) else []
        with self._lock:
            start = 0
            while start < len(values):
                count = self._chunk(values, batch)
                done.append(self._run(values[start : start + count], batch, outputs, every))
                start += count
        return np.concatenate(done)

    def close(self) -> None:
        """End the process; later use raises ValueError."""
        with self._lock:
            self._over = self._over or f"{self.name!r} cannot run because it was closed"
            if self._child is not None:
                self._child.close()
                self._child = None

    def _chunk(self, values: Array, batch: int) -> int:
        """Return the number of images per message: a multiple of the batch that takes a few seconds at most."""
        if self._image_s is None:
            return batch
        by_bytes = MOST_BYTES // max(1, int(values[0].nbytes))
        by_time = int(_CHUNK_S / max(self._image_s, 1e-6))
        return max(1, min(by_bytes, by_time) // batch) * batch

    def _run(self, chunk: Array, batch: int, outputs: int, every: bool) -> Array:
        count = len(chunk)
        timed = self._image_s is not None
        limit_s = RUN_S + (TIMES * count * (self._image_s or 0.0) if timed else IMAGE_S * (count - 1))
        began = time.perf_counter()
        answer = self._ask({"do": "run", "batch": batch, "all": every}, chunk, limit_s, 8 * (count + 1) * outputs)
        self._image_s = (time.perf_counter() - began) / count
        rows = answer[1]
        if rows is None or rows.shape != (count, outputs):
            got = None if rows is None else rows.shape
            raise ValueError(f"{self._title} must give ({count}, {outputs}) numbers for {self.name!r}, but got {got}")
        return rows

    # The process

    @property
    def _title(self) -> str:
        return TITLES[self.runtime]

    def _connected(self) -> "_Child":
        if self._over is not None:
            raise ValueError(self._over)
        if self._child is None or self._child.owner != os.getpid():
            self._child = _Child()
            request = {"do": "open", "runtime": self.runtime, "path": self._path, "threads": self._threads}
            answer, _ = self._ask(request, None, OPEN_S)
            self.inputs, self.outputs = (tuple(map(_entry, answer[name])) for name in ("inputs", "outputs"))
            if self._shape is not None:
                self._prepare()
        return self._child

    def _prepare(self) -> None:
        self._ask({"do": "resize", "shape": self._shape}, None, OPEN_S)

    def _ask(
        self, request: dict[str, Any], values: Array | None, limit_s: float, most_bytes: int = 0
    ) -> tuple[Any, Array | None]:
        child = self._child if request["do"] == "open" else self._connected()
        assert child is not None
        try:
            answer, output = child.ask(request, values, limit_s, most_bytes)
        except TimeoutError:
            self._fail(f"did not run {self.name!r} within {limit_s:.0f} s and was stopped")
        except (EOFError, OSError, ValueError, RecursionError, KeyError, TypeError) as error:
            self._fail(f"cannot run {self.name!r}, which is damaged or too large: {child.ended(error)}")
        except BaseException:  # after Ctrl-C a late answer would be mistaken for the next one
            self.close()
            raise
        if "ok" in answer:
            return answer["ok"], output
        raw = str(answer.get("error"))
        text = printable(explained(raw))
        if answer.get("of") == "setup":
            self.close()
            raise ImportError(text)
        if request["do"] == "open":
            damaged = explained(raw) == raw
            verb, hint = ("read", ", which may be truncated") if damaged else ("run", "")
            self._fail(f"cannot {verb} {self.name!r}{hint}: {text}")
        where = f" on inputs of shape {self._shape}" if request["do"] == "resize" else ""
        raise ValueError(f"{self._title} cannot run {self.name!r}{where}: {text}")

    def _fail(self, reason: str) -> None:
        self._over = f"{self._title} {reason}"
        self.close()
        raise ValueError(self._over)


class _Child:
    """The child process and the connection to it; the process ends with the last reference to this object."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._direct: served.ModelServer | None = None
        self._process: subprocess.Popen[bytes] | None = None
        if sys.platform == "win32":  # no sockets can be inherited there, so the file runs in this process
            self._direct = served.ModelServer()
            return
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `_end`)
        self._end, theirs = socket.socketpair()
        with theirs:
            for side in (self._end, theirs):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MOST_BYTES)
            self._process = spawn(
                served.__file__,
                [str(theirs.fileno())],
                errors=self._errors,
                environment={"TF_CPP_MIN_LOG_LEVEL": "2"},
                descriptors=[theirs.fileno()],
            )
        self._finalizer = weakref.finalize(self, _end, self.owner, self._process, self._end, self._errors)

    def ask(
        self, request: dict[str, Any], values: Array | None, limit_s: float, most_bytes: int
    ) -> tuple[dict[str, Any], Array | None]:
        """Return the answer to a request. Raises TimeoutError, EOFError, OSError, and ValueError if it is damaged."""
        if self._direct is not None:
            return self._direct.answer(request, values)
        self._end.settimeout(limit_s)
        served.send(self._end, request, values)
        return served.receive(self._end, most_bytes)

    def ended(self, error: BaseException) -> str:
        """Return a description of the process's end, with the last line that it printed."""
        if self._process is None:
            return printable(str(error))
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        code = self._process.returncode
        if code is None:
            return f"its process answered {printable(str(error))[:200]!r}"
        self._errors.seek(0)
        lines = self._errors.read()[-4096:].decode(errors="replace").splitlines()
        words = [text for text in lines if text.strip() and not text.startswith("INFO:")]
        how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        return f"its process ended with {how}" + (f": {printable(words[-1])[:200]}" if words else "")

    def close(self) -> None:
        if self._process is not None and self.owner == os.getpid():
            self._finalizer()


def _end(owner: int, process: "subprocess.Popen[bytes]", connection: socket.socket, errors: IO[bytes]) -> None:
    connection.close()
    errors.close()
    if owner == os.getpid():  # a forked process must leave its parent's child alone
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        kill(process)
        end(process, 5)


def _entry(values: dict[str, Any]) -> TensorSpec:
    return TensorSpec(
        name=values["name"], shape=tuple(values["shape"]), dtype=values["dtype"], scale=values["scale"],
        zero_point=values["zero_point"],
    )  # fmt: skip
