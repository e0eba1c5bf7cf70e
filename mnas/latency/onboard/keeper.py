"""The board's end of a connection: keeps the folder, its files, the lock and the measuring script.

The keeper runs on the board with Python 3.9 or newer and nothing of mnas. Its source arrives through its standard input
(mnas.latency.devices.ssh), so nothing is on the board before there is a process that removes it. It ends with its
input, after `SILENCE_S` without input (the other end sends a line every few seconds), or by a signal; in each case it
kills the script and removes the folder. If the keeper itself is killed, the system kills the script with it, and the
next keeper removes the folder.

Its input is lines of JSON. Lines that begin with `KEEPER` are for the keeper, which passes all others on to the script.
Its output is the answers of both, a line each, in the script's form: {"ok": ...} or {"error": text, "of": "unit"}, with
"process" instead of "unit" where the script has ended, and "time" where a model took too long.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

if sys.platform != "win32":  # the controlling machine may import this there, to send it
    import fcntl

KEEPER = '{"keeper":'
"""Start of a line for the keeper, and of its greeting."""
SCRIPT = "script.py"
"""Name of the script that it starts."""
PREFIX = "mnas-board-"
"""Prefix of the folder's name, in the system's folder for temporary files."""
LOCK = "mnas-measuring.lock"
"""Name of the lock file in that folder; its holder may measure, whatever machine controls it."""
SILENCE_S = 60.0


class GoneError(Exception):
    """Error for an input whose other end is gone."""


class Input:
    """Standard input with a limit on silence."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s, self._ahead = silence_s, b""

    def line(self) -> bytes:
        while b"\n" not in self._ahead:
            self._ahead += self._more()
        line, _, self._ahead = self._ahead.partition(b"\n")
        return line + b"\n"

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes, in pieces as they come."""
        while size > 0:
            piece, self._ahead = self._ahead[:size], self._ahead[size:]
            if piece:
                yield piece
                size -= len(piece)
            else:
                self._ahead = self._more()

    def _more(self) -> bytes:
        ready, _, _ = select.select([0], [], [], self._silence_s)
        piece = os.read(0, 1 << 16) if ready else b""
        if not piece:
            raise GoneError
        return piece


class Keeper:
    """Folder, script and lock of one connection."""

    def __init__(self, silence_s: float) -> None:
        self._input = Input(silence_s)
        self._script: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._speaking = threading.Lock()
        sweep()
        self.folder = tempfile.mkdtemp(prefix=PREFIX)
        self._alive = os.open(self.folder, os.O_RDONLY)
        fcntl.flock(self._alive, fcntl.LOCK_EX)  # the lock keeps sweeps away from the folder

    def serve(self) -> None:
        """Serve requests until the input ends. Raises GoneError, BrokenPipeError."""
        self._say({"keeper": {"folder": self.folder, "pid": os.getpid(), "python": sys.version.split()[0]}})
        while True:
            line = self._input.line()
            if not line.startswith(KEEPER.encode()):
                self._pass_on(line)
                continue
            request = json.loads(line)
            do = request.pop("keeper")
            if do == "alive":  # only a sign of life; an answer might collide with the script's
                continue
            try:
                answer = getattr(self, "_do_" + do)(**request)
            except OSError as error:
                self._say({"error": f"{error.filename or self.folder}: {error.strerror}", "of": "unit"})
            else:
                self._say({"ok": answer})

    def close(self) -> None:
        """Kill the script, remove the folder and release the lock."""
        if self._script is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._script.pid, signal.SIGKILL)  # the script leads a group, which holds all that it started
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._script.wait(5)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._do_release()

    def _do_put(self, name: str, size: int, sha256: str) -> str:
        path = os.path.join(self.folder, name)
        pieces = self._input.pieces(size)
        try:
            with open(path, "wb") as file:
                for piece in pieces:
                    file.write(piece)
        except OSError as error:
            for _ in pieces:  # the bytes arrive all the same
                pass
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise OSError(error.errno, f"cannot be written, {error.strerror}", path) from None
        if not self._do_has(path, sha256):
            raise OSError(0, f"{size} bytes were written, but the bytes read back differ", path)
        return path

    def _do_has(self, path: str, sha256: str) -> bool:
        """Return whether the file is there with this digest."""
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == sha256
        return False

    def _do_remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def _do_start(self) -> int:
        alone = ["-P"] if sys.version_info >= (3, 11) else []
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONIOENCODING": "utf-8"}
        self._script = subprocess.Popen(
            [sys.executable, *alone, os.path.join(self.folder, SCRIPT), str(os.getpid())],  # its parent
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=self.folder,
            start_new_session=True,
        )
        threading.Thread(target=self._pass_back, args=(self._script,), daemon=True).start()
        return self._script.pid

    def _do_claim(self, who: str) -> str | None:
        """Lock the board for measuring; return the holder if another process has the lock."""
        path = os.path.join(tempfile.gettempdir(), LOCK)
        while self._lock is None:
            lock = _open_lock(path)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(lock, 300, 0).decode(errors="replace")
                os.close(lock)
                return " ".join(holder.split()) or "another program"
            if not _is_at(path, lock):
                os.close(lock)  # the last holder removed the file meanwhile
                continue
            with contextlib.suppress(OSError):  # another user's file, or a full disk; the lock is valid all the same
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{who}, since {time.strftime('%H:%M:%S')}".encode(), 0)
            self._lock = lock
        return None

    def _do_release(self) -> None:
        if self._lock is not None:
            path = os.path.join(tempfile.gettempdir(), LOCK)
            with contextlib.suppress(OSError):
                if _is_at(path, self._lock):
                    os.unlink(path)  # while it is locked, so that no other process has it
            os.close(self._lock)
            self._lock = None

    def _pass_on(self, line: bytes) -> None:
        try:
            if self._script is None or self._script.stdin is None:
                raise BrokenPipeError
            self._script.stdin.write(line)
            self._script.stdin.flush()
        except BrokenPipeError:  # `_pass_back` reports its end; this answers later requests
            self._say({"error": "the measuring process has ended", "of": "unit"})

    def _pass_back(self, script: subprocess.Popen[bytes]) -> None:
        """Pass on the script's answers and, at the end, its exit status."""
        assert script.stdout is not None
        assert script.stderr is not None
        words: collections.deque[bytes] = collections.deque(maxlen=1)
        listening = threading.Thread(target=words.extend, args=(filter(bytes.strip, script.stderr),), daemon=True)
        listening.start()
        with contextlib.suppress(OSError):
            for line in script.stdout:
                self._send(line)
            status = script.wait()
            listening.join(1)
            last = "".join(f": {word.decode(errors='replace').strip()[:300]}" for word in list(words))
            of = "time" if status in (-signal.SIGALRM, -signal.SIGXCPU) else "process"
            self._say({"error": f"the measuring process ended with status {status}{last}", "of": of})

    def _say(self, answer: dict[str, Any]) -> None:
        self._send(json.dumps(answer).encode() + b"\n")

    def _send(self, line: bytes) -> None:
        with self._speaking:
            while line:
                line = line[os.write(1, line) :]


def sweep(prefix: str = PREFIX) -> None:
    """Remove folders whose owners were killed; a folder of the last minute may not be locked yet, and stays."""
    place = tempfile.gettempdir()
    for name in os.listdir(place):
        path = os.path.join(place, name)
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            mine = name.startswith(prefix) and stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if not mine or time.time() - status.st_mtime < SILENCE_S:
                continue
            folder = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(folder)


def _open_lock(path: str) -> int:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    while True:
        with contextlib.suppress(FileNotFoundError):
            try:
                return os.open(path, os.O_RDWR | flags)
            except PermissionError:
                return os.open(path, os.O_RDONLY | flags)
        with contextlib.suppress(FileExistsError):  # O_CREAT alone fails on another user's file in /tmp
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o666)
            os.fchmod(lock, 0o666)
            return lock


def _is_at(path: str, opened: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(opened))
    return False


def _leave(*_: object) -> None:
    raise GoneError


def main(silence_s: float = SILENCE_S) -> None:
    """Serve until the other end is gone. Ends the process, with status 0 if all files were removed."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _leave)
    keeper = Keeper(silence_s)
    with contextlib.suppress(GoneError, BrokenPipeError):
        try:
            keeper.serve()
        finally:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            keeper.close()
    os._exit(0 if not os.path.exists(keeper.folder) else 1)  # the thread may hang in a write to a closed end
