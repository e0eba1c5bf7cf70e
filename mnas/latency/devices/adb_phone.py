"""A connected phone: its identity, and the files that mnas puts on it."""

import contextlib
import hashlib
import os
import secrets
import shlex
import uuid
from pathlib import Path

from mnas.latency.devices import benchmark_model as tool
from mnas.latency.devices.adb_link import AdbLink
from mnas.latency.devices.android import IDENTITY, LOCAL, CoreOf, State, read_identity, read_state, state_command
from mnas.latency.latency import UnitError
from mnas.latency.unit import Core

CLEAN_TIMEOUT_S = 5.0
"""Limit in seconds for removing the files that were pushed."""
HELP = "docs/guides/phone.md explains where to get it"


class Phone:
    """Connects to a phone and identifies it. Its files stay until `close`.

    Args:
        core: core that measures.
        max_mhz: clock that counts as the core's full one; None: its maximum.

    Raises:
        ValueError: the phone has no such core.
        UnitError: the phone cannot be reached; every method raises it too.
    """

    def __init__(self, link: AdbLink, core: Core, max_mhz: int | None) -> None:
        self.link = link
        output = link.shell(IDENTITY)
        identity = read_identity(output.text)
        if identity is None:
            raise UnitError(f"the phone does not answer like Android: {output.text[:200]!r}")
        self.identity = identity
        self.core = self._measuring_core(core)
        """Core that measures; None: no core is pinned."""
        self.full_khz = max_mhz * 1000 if max_mhz else self.core.max_khz if self.core else None
        """Clock that the core should run at, in kHz; None: unknown, so not checked."""
        self._folder: str | None = None
        self._program: tuple[str, str] | None = None

    def look(self) -> State:
        """Return the phone's present state."""
        return read_state(self.link.shell(state_command(self.core.number if self.core else None)).text)

    def folder(self) -> str:
        """Return this process's folder on the phone, made on first use, after removing those of killed processes."""
        if self._folder is None:
            prefix = f"{LOCAL}/mnas-{uuid.getnode():x}-"
            for abandoned in self.link.shell(f"ls -d {prefix}* 2>/dev/null").text.split():
                if not _alive(abandoned.removeprefix(prefix)):
                    self._clean(abandoned)
            folder = f"{prefix}{os.getpid()}-{secrets.token_hex(4)}"
            made = self.link.shell(f"mkdir {folder} 2>&1")
            if made.code != 0:
                raise UnitError(f"cannot create a folder on the phone: {made.text}")
            self._folder = folder
        return self._folder

    def push(self, content: bytes, name: str, mode: int = 0o644) -> str:
        """Bring a file to the folder, check it there, and return its path."""
        path = f"{self.folder()}/{name}"
        self.link.push(content, path, mode)
        output = self.link.shell(f"stat -c %s {path}; sha256sum {path}")
        size, digest, *_ = [*output.text.split(), "", ""]
        if size != str(len(content)) or digest != hashlib.sha256(content).hexdigest():
            raise UnitError(f"{path} did not arrive complete on the phone: {size or 'none'} of {len(content)} bytes")
        return path

    def remove(self, path: str) -> None:
        """Remove a file of `push`, if the phone is still reachable."""
        with contextlib.suppress(UnitError):
            self.link.shell(f"rm -f {path}", CLEAN_TIMEOUT_S)

    def digest(self, path: str) -> str | None:
        """Return the SHA-256 of a file on the phone; None if the file is missing."""
        output = self.link.shell(f"sha256sum {shlex.quote(path)} 2>/dev/null")
        return output.text.split()[0] if output.code == 0 and output.text.strip() else None

    def program(self, binary: str) -> tuple[str, str]:
        """Return path and SHA-256 of `benchmark_model` on the phone, as it prints no version; push it if needed.

        Raises:
            ValueError: the program is missing, or does not run on this phone.
        """
        if self._program is None:
            path, digest = self._find_program(binary)
            greeting = self.link.shell(f"{shlex.quote(path)} 2>&1")  # without a model it prints only an error
            if "STARTING!" not in greeting.text:
                raise ValueError(
                    f"benchmark_model must be the program for {self.identity.abi}, but {binary} prints "
                    f"{tool.failure(greeting.text)!r} (exit code {greeting.code}); {HELP}"
                )
            self._program = path, digest
        return self._program

    def close(self) -> None:
        """Remove all files, and end the programs that still run. Never raises."""
        if self._folder is not None:
            with contextlib.suppress(UnitError):
                self._clean(self._folder)
            self._folder = self._program = None

    def _find_program(self, binary: str) -> tuple[str, str]:
        place = f"{LOCAL}/benchmark_model"
        if binary.startswith("device:"):
            place = binary.removeprefix("device:")
            digest = self.digest(place)
            if digest is None:
                raise ValueError(f"benchmark_model must be a file on the phone, but {place} does not exist; {HELP}")
            return place, digest
        try:
            content = Path(binary).expanduser().read_bytes()
        except OSError as error:
            raise ValueError(
                f"benchmark_model must be a readable file, but got {binary} ({error.strerror}); {HELP}"
            ) from None
        digest = hashlib.sha256(content).hexdigest()
        if self.digest(place) == digest:
            return place, digest
        return self.push(content, "benchmark_model", 0o755), digest

    def _measuring_core(self, core: Core) -> CoreOf | None:
        numbers = {c.number: c for c in self.identity.cores}
        if core is None or not numbers:
            return None
        if core == "auto":
            return self.identity.fastest()[0]
        if not isinstance(core, int) or core not in numbers:
            raise ValueError(f"core must be auto or one of {', '.join(map(str, numbers))}, but got {core!r}")
        return numbers[core]

    def _clean(self, folder: str) -> None:
        # a program that still runs there would disturb the next measurement; its number may be another's by now
        self.link.shell(
            f"p=$(cat {folder}/pid 2>/dev/null) && grep -q {folder} /proc/$p/cmdline 2>/dev/null && kill -9 $p; "
            f"rm -rf {folder}",
            CLEAN_TIMEOUT_S,
        )


def _alive(owner: str) -> bool:
    """Return whether the process that a folder is named after still runs here, and is not this one.

    A process has one connection to a phone at a time, so other folders of this process are from broken connections.
    """
    try:
        pid = int(owner.partition("-")[0])
        os.kill(pid, 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        return True
    return pid != os.getpid()
