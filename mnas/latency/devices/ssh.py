"""Linux boards over ssh: Raspberry Pi, Jetson, any machine with Python and the runtime.

`keeper.py` runs on the board and removes everything from it at the end; it receives `script.py` and runs it. Both files
and the models go through the standard input of one command, so a board needs neither sftp nor a prepared folder.
"""

import asyncio
import collections
import contextlib
import getpass
import hashlib
import json
import os
import queue
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnas.latency.devices.scripted import Channel, ScriptUnit
from mnas.latency.devices.ssh_login import Address, log_in, parse_address
from mnas.latency.latency import UnitError
from mnas.latency.onboard import keeper, script
from mnas.latency.unit import Core
from mnas.readers import parse_json
from mnas.text import clean

if TYPE_CHECKING:
    import asyncssh

START_TIMEOUT_S = 60.0
"""Limit in seconds for logging in and for starting Python there, from a slow card."""
QUICK_S = 30.0
"""Limit in seconds for requests that the board answers immediately."""
SLOWEST_BYTES_PER_S = 50_000
"""Slowest line that models can be sent over."""
HEARTBEAT_S = 10.0
"""Interval in seconds of the heartbeat; without it, the keeper ends after `keeper.SILENCE_S`."""
LEAVE_S = 3.0
"""Seconds for the keeper to end by itself before a second command ends it."""
CLAIM_PAUSE_S = 0.5
CLAIM_TIMEOUT_S = 900.0
"""Longest wait in seconds for another machine that measures on the board; a measurement takes seconds."""
KEPT_FILES = 4
"""Number of the most used models that stay on the board while it is connected. Every candidate takes turns with the
reference, and sending the reference again over a slow line would take longer than measuring."""
LONGEST_LINE = 1 << 24
"""Maximum size of an answer in bytes; a round's answer has some kilobytes."""

Say = Callable[[str], None]


def _say_on_stderr(text: str) -> None:
    print(clean(text), file=sys.stderr, flush=True)


def ssh_unit(
    name: str, address: str, *, python: str = "python3", core: Core = "auto", say: Say = _say_on_stderr
) -> ScriptUnit:
    """Return a board at `address`; it is connected on first use.

    Args:
        name: name in the registry.
        address: `user@host:port`; the ssh configuration for the host supplies a missing user or port.
        python: interpreter on the board that has the runtime, for instance in a virtual environment; `~/` is the
            user's home there.
        core: core to measure on.
        say: called with a line when the unit waits for another user of the board.

    Raises:
        ValueError: `address` is not an ssh address.
    """
    where = parse_address(address)
    return ScriptUnit(name, lambda: SshChannel(where, python, say), core)


class SshChannel(Channel):
    """`script.py` on a board, over one connection; asyncio runs in a separate thread.

    Raises:
        UnitError: the board is unreachable, refuses the login, or has no such Python.
    """

    def __init__(self, address: Address, python: str, say: Say) -> None:
        self._address, self._say = address, say
        self._connection: asyncssh.SSHClientConnection | None = None
        self._process: asyncssh.SSHClientProcess[bytes] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._complaints: collections.deque[str] = collections.deque(maxlen=1)
        self._broken, self._spoke = "", time.monotonic()
        self._folder, self._pids = "", ""
        self._there: dict[str, str] = {}  # paths by SHA-256, the last used last
        self._uses: collections.Counter[str] = collections.Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"ssh {address}", daemon=True)
        self._thread.start()
        try:
            self._run(self._begin(python), START_TIMEOUT_S)
            self._greet()
            source = Path(script.__file__).read_bytes()
            self._bring(keeper.SCRIPT, source, hashlib.sha256(source).hexdigest())
            self._pids += f" -{int(self._order('start'))}"
        except BaseException:
            self.close()
            raise

    def put(self, name: str, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        self._uses[sha256] += 1
        path = self._there.pop(sha256, "")
        if not path or not self._order("has", path=path, sha256=sha256):
            path = self._bring(f"{name}-{sha256[:12]}", content, sha256)
        self._there[sha256] = path
        return path

    def remove(self, path: str) -> None:
        while len(self._there) > KEPT_FILES:
            # the last two are the pair that was just measured, and the candidate's memory is measured next
            rarest = min(list(self._there)[:-2], key=self._uses.__getitem__)
            self._order("remove", path=self._there.pop(rarest))

    def ask(self, line: str, timeout_s: float) -> str:
        return self._exchange(line.encode() + b"\n", timeout_s).decode(errors="replace").strip()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        self._claim()
        try:
            yield
        finally:
            with contextlib.suppress(UnitError):  # a lost connection has released the lock
                self._order("release")

    def close(self) -> None:
        if self._loop.is_closed():
            return
        with contextlib.suppress(Exception):
            self._run(self._end(), 20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        if not self._thread.is_alive():
            self._loop.close()

    # in the caller's thread

    def _bring(self, name: str, content: bytes, sha256: str) -> str:
        request = {"keeper": "put", "name": name, "size": len(content), "sha256": sha256}
        timeout_s = QUICK_S + len(content) / SLOWEST_BYTES_PER_S
        return str(_content_of(self._exchange(json.dumps(request).encode() + b"\n" + content, timeout_s)))

    def _run(self, work: Coroutine[Any, Any, None], timeout_s: float) -> None:
        """Run `work` in the loop's thread."""
        if self._loop.is_closed():
            work.close()
            raise UnitError("the ssh connection is closed")
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout_s), self._loop)
        try:
            future.result()
        except TimeoutError:
            raise UnitError(f"{self._address} accepted no data within {timeout_s:.0f} s") from None
        except BaseException:
            future.cancel()
            raise

    def _exchange(self, message: bytes, timeout_s: float) -> bytes:
        until = time.monotonic() + timeout_s
        self._run(self._send(message), timeout_s)
        return self._answer(until, timeout_s)

    def _answer(self, until: float, timeout_s: float) -> bytes:
        try:
            line = self._answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise UnitError(f"{self._address} did not answer within {timeout_s:g} s") from None
        if line.endswith(b"\n"):
            return line
        self._answers.put(b"")  # every later call must see the end too
        within = f" in the middle of an answer ({line[:80]!r})" if line else ""
        words = "".join(f": {word}" for word in self._complaints)
        raise UnitError(f"{self._address}: {self._broken}{within}{words}")

    def _greet(self) -> None:
        """Wait for the keeper; a shell's start-up files may print lines before it."""
        until, line = time.monotonic() + START_TIMEOUT_S, b""
        for _ in range(1000):
            line = self._answer(until, START_TIMEOUT_S)
            if line.startswith(keeper.KEEPER.encode()):
                try:
                    greeting = parse_json(line, LONGEST_LINE)["keeper"]
                    self._folder, self._pids = str(greeting["folder"]), str(int(greeting["pid"]))
                except (ValueError, KeyError, TypeError):
                    break
                return
        raise UnitError(
            f"{self._address} must greet mnas, but prints other lines, such as {line[:80]!r}; make sure that the "
            "start-up files of its shell print nothing"
        )

    def _order(self, do: str, **values: str) -> Any:
        return _content_of(self._exchange(json.dumps({"keeper": do, **values}).encode() + b"\n", QUICK_S))

    def _claim(self) -> None:
        """Wait until no other machine measures on the board."""
        who = f"{getpass.getuser()}@{socket.gethostname()} (process {os.getpid()})"
        began, said = time.monotonic(), ""
        while holder := self._order("claim", who=who):
            if holder != said:
                self._say(f"waiting for {self._address}, which is measuring for {holder}")
                said = str(holder)
            if time.monotonic() - began > CLAIM_TIMEOUT_S:
                raise UnitError(
                    f"{self._address} was still measuring for {holder} after a wait of {CLAIM_TIMEOUT_S:.0f} s"
                )
            time.sleep(CLAIM_PAUSE_S)

    # in the loop's thread

    async def _begin(self, python: str) -> None:
        source = Path(keeper.__file__).read_bytes()
        self._connection = await log_in(self._address)
        command = _command(python, len(source))
        self._process = await self._connection.create_process(command, encoding=None, request_pty=False)
        self._tasks = [asyncio.create_task(work) for work in (self._read(), self._listen(), self._beat())]
        await self._send(source)

    async def _send(self, message: bytes) -> None:
        import asyncssh

        assert self._process is not None
        self._spoke = time.monotonic()
        with contextlib.suppress(asyncssh.Error, OSError):  # `_read` reports the cause, and its end counts as an answer
            self._process.stdin.write(message)
            await self._process.stdin.drain()

    async def _read(self) -> None:
        """Pass on each line of the output as an answer, the last one even if it is incomplete."""
        import asyncssh

        assert self._process is not None
        ahead = b""
        try:
            while piece := await self._process.stdout.read(1 << 16):
                *lines, ahead = (ahead + piece).split(b"\n")
                for line in lines:
                    self._answers.put(line + b"\n")
                if len(ahead) > LONGEST_LINE:
                    self._broken = f"an answer exceeds {LONGEST_LINE} bytes"
                    break
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait_closed(), 5)
                self._broken = _ending(self._process)
        except (asyncssh.Error, OSError) as error:
            self._broken = f"the ssh connection was lost ({' '.join(str(error).split()) or type(error).__name__})"
        finally:
            self._answers.put(ahead)

    async def _listen(self) -> None:
        """Keep the last line of the keeper's standard error."""
        import asyncssh

        assert self._process is not None
        ahead = b""
        with contextlib.suppress(asyncssh.Error, OSError):
            while piece := await self._process.stderr.read(1 << 16):
                *lines, ahead = (ahead + piece)[-LONGEST_LINE:].split(b"\n")
                self._complaints.extend(line.decode(errors="replace").strip()[:300] for line in lines if line.strip())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(max(0.1, self._spoke + HEARTBEAT_S - time.monotonic()))
            if time.monotonic() - self._spoke >= HEARTBEAT_S:
                await self._send(b'{"keeper": "alive"}\n')

    async def _end(self) -> None:
        """End the keeper by closing its input; if it stays, a second command kills it and removes its folder."""
        for task in self._tasks[2:]:
            task.cancel()
        if self._process is not None and self._connection is not None:
            with contextlib.suppress(OSError, TimeoutError):
                self._process.stdin.write_eof()
                await asyncio.wait_for(self._process.wait_closed(), LEAVE_S)
            if self._folder and self._process.exit_status != 0:
                clean = f"kill -s KILL -- {self._pids}; rm -rf -- {shlex.quote(self._folder)}"
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(self._connection.run(clean), 5)
        if self._connection is not None:
            self._connection.close()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._connection.wait_closed(), 2)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _command(python: str, size: int) -> str:
    """Return a command for any shell: Python reads the keeper's source, `size` bytes, from its input and runs it."""
    # -I ignores the folder where Python starts; the code has no quotes or signs that a shell would interpret
    code = (
        'import sys; sys.version_info < (3, 9) and sys.exit("Python 3.9 or newer is needed"); '
        f'names = {{"__name__": "keeper"}}; exec(sys.stdin.buffer.read({size}), names); names["main"]()'
    )
    home, rest = ('"$HOME"/', python[2:]) if python.startswith("~/") else ("", python)
    return f"exec {home}{shlex.quote(rest)} -I -c {shlex.quote(code)}"


def _ending(process: "asyncssh.SSHClientProcess[bytes]") -> str:
    if process.exit_signal is not None:
        return f"Python on the board was killed by SIG{process.exit_signal[0]}"
    if process.exit_status is None:
        return "the ssh connection ended"
    return f"Python on the board ended with status {process.exit_status}"


def _content_of(answer: bytes) -> Any:
    """Return the keeper's answer. Raises UnitError if it is an error, or malformed."""
    try:
        reply = parse_json(answer, LONGEST_LINE)
        if not isinstance(reply, dict) or not {"ok", "error"} & set(reply):
            raise ValueError
    except ValueError:
        raise UnitError(f"unexpected answer {answer[:200]!r}") from None
    if "error" in reply:
        raise UnitError(str(reply["error"]))
    return reply["ok"]
