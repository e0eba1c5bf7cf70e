"""Commands and files over an adb server, with adbutils; every failure is a UnitError of one line."""

import contextlib
import os
import shutil
import socket
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mnas.latency.devices.kinds import host_and_port
from mnas.latency.latency import UnitError

STEP_TIMEOUT_S = 20.0
"""Limit in seconds for a short step: a list, a small command, a piece of a file."""
PIECE_BYTES = 64 * 1024
"""Maximum size of a packet of the protocol."""
STATES = {
    "unauthorized": "it does not trust this computer yet; unlock it and confirm its dialog 'Allow USB debugging'",
    "offline": "it is offline; wake it up, unplug it and plug it in again",
    "authorizing": "it is about to ask for permission; unlock it and confirm its dialog 'Allow USB debugging'",
    "no": "this user has no permissions for the USB device; install Android's udev rules (Debian: "
    "android-sdk-platform-tools-common) and join the group plugdev",
    "recovery": "it is in recovery mode; start Android",
    "sideload": "it is in sideload mode; start Android",
    "bootloader": "it is in the bootloader; start Android",
}
"""First word of each state in which a phone cannot be used -> its meaning and remedy."""


@dataclass(frozen=True)
class Output:
    """Output of a command on the phone, standard error included, and its exit status."""

    code: int
    text: str
    seconds: float


class AdbLink:
    """One phone, connected on first use.

    Raises:
        ValueError: `server` is neither None (adb's own default) nor `host:port`.
    """

    def __init__(self, serial: str | None, server: str | None) -> None:
        self._serial, self._server = serial, _server_address(server)
        self._device: Any = None

    def shell(self, command: str, timeout_s: float = STEP_TIMEOUT_S) -> Output:
        """Run `command` in the phone's shell; `timeout_s` limits the time without output."""
        with _one_line():
            device = self._connected()
            started = time.perf_counter()
            result = device.shell2(command, timeout=timeout_s, encoding="utf-8", v2=True)
            return Output(result.returncode, result.output, time.perf_counter() - started)

    def push(self, content: bytes, path: str, mode: int = 0o644) -> None:
        """Write a file through adb's sync service (adbutils' own method drops the reason of a failure)."""
        with _one_line(), self._connected().open_transport(timeout=STEP_TIMEOUT_S) as transport:
            transport.send_command("sync:")
            transport.check_okay()
            target = f"{path},{stat.S_IFREG | mode}".encode()
            try:
                transport.conn.sendall(b"SEND" + struct.pack("<I", len(target)) + target)
                for start in range(0, len(content), PIECE_BYTES):
                    piece = content[start : start + PIECE_BYTES]
                    transport.conn.sendall(b"DATA" + struct.pack("<I", len(piece)) + piece)
                transport.conn.sendall(b"DONE" + struct.pack("<I", int(time.time())))
            except ConnectionError:
                pass  # the phone has given up, and its answer contains the reason
            answer, length = transport.read_exact(4), transport.read_uint32()
            if answer != b"OKAY":
                reason = transport.read_string(min(length, 1000)) if answer == b"FAIL" else repr(answer)
                raise UnitError(f"{path} cannot be written on the phone: {reason}")

    def _connected(self) -> Any:
        if self._device is None:
            _require_server(*self._server)
            import adbutils

            client = adbutils.AdbClient(*self._server, socket_timeout=STEP_TIMEOUT_S)
            serial = _usable({phone.serial: phone.state for phone in client.list()}, self._serial)
            self._device = client.device(serial)
        return self._device


def _usable(states: dict[str, str], serial: str | None) -> str:
    """Return the serial to use, from the server's phones. Raises UnitError."""
    if serial is None:
        if len(states) != 1:
            which = f"got {', '.join(states)}; set address in devices.toml to one of them"
            raise UnitError(
                f"exactly one phone must be connected to adb, but {which if states else 'got none; plug the phone in'}"
            )
        serial = next(iter(states))
    if serial not in states:
        serials = ", ".join(states) or "none"
        raise UnitError(
            f"phone {serial} is not connected to adb (connected: {serials}); plug it in, unlock it and turn on USB "
            "debugging"
        )
    if (state := states[serial]) != "device":
        raise UnitError(f"phone {serial}: {STATES.get(state, f'it is in state {state!r}')}")
    return serial


def _server_address(server: str | None) -> tuple[str, int]:
    if server is None:
        port = os.environ.get("ANDROID_ADB_SERVER_PORT", "5037")
        server = f"{os.environ.get('ANDROID_ADB_SERVER_HOST', '127.0.0.1')}:{port}"
    address = host_and_port(server)
    if address is None:
        raise ValueError(f"adb_server must be host:port, but got {server!r}")
    return address


def _require_server(host: str, port: int) -> None:
    """Raise UnitError unless a server listens; adbutils would start a daemon that outlives this process."""
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError:
        here = host in ("127.0.0.1", "localhost", "::1")
        fix = "run `adb start-server`" if here else f"start one on {host}"
        if here and not shutil.which("adb"):
            fix = f"install adb (Debian: apt install adb), then {fix}"
        raise UnitError(f"no adb server answers at {host}:{port}; {fix}") from None


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Convert every error of adbutils and the connection to a UnitError with a remedy."""
    import adbutils

    try:
        yield
    except adbutils.AdbError as error:  # includes adbutils' timeouts
        text = " ".join(str(error).split())
        if "timeout" in text:
            raise UnitError(f"the phone did not answer in time ({text})") from None
        if "not found" in text:
            raise UnitError(f"the phone is no longer connected ({text}); plug it in") from None
        state = next((STATES[word] for word in ("unauthorized", "offline") if word in text), None)
        raise UnitError(state or f"adb reports: {text[:200]}") from None
    except (OSError, EOFError, ValueError) as error:
        raise UnitError(f"the connection to the phone was lost ({type(error).__name__}: {error})") from None
