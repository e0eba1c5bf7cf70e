"""A real OpenSSH server on this machine that plays a board, with its own keys, port and temporary folder.

It runs as the user of the tests. Its programs have its `TMPDIR`, so a test finds all that they leave behind.
"""

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PATH = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
needs_sshd = pytest.mark.skipif(PATH is None, reason="no sshd; scripts/install-test-tools installs it")


@dataclass
class Sshd:
    """A listening server, and the home of a user who may log in."""

    folder: Path
    port: int
    process: subprocess.Popen

    @property
    def address(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        """Home with key and known_hosts in `.ssh`; set HOME to it."""
        return self.folder / "home"

    @property
    def temporary(self) -> Path:
        """The board's folder for temporary files."""
        return self.folder / "tmp"

    def programs(self) -> dict[int, str]:
        """Return the command lines that run on the board now, by process."""
        marker, found = f"TMPDIR={self.temporary}\0".encode(), {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and marker in (entry / "environ").read_bytes() + b"\0":
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        return found

    def measuring(self) -> int:
        """The process of script.py."""
        return next(pid for pid, command in self.programs().items() if re.search(r"/script\.py \d+$", command))

    def keeping(self) -> int:
        """The process of keeper.py."""
        return next(pid for pid, command in self.programs().items() if "keeper" in command)

    def drop(self, number: int = signal.SIGKILL) -> None:
        """Kill the processes that serve the connections, as if the line were cut; the server itself continues."""
        for pid in _descendants(self.process.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                    os.kill(pid, number)

    def python(self, name: str, text: str) -> str:
        """Write a program on the board that is called instead of Python; {python} in `text` is the real one."""
        path = self.folder / name
        path.write_text(text.replace("{python}", sys.executable))
        path.chmod(0o755)
        return str(path)

    def left(self, but: str = "", within_s: float = 5.0) -> list[str]:
        """Return what still runs or lies on the board, except a file named `but`; wait a while until nothing does."""
        until = time.monotonic() + within_s
        while True:
            found = [*self.programs().values(), *sorted({*os.listdir(self.temporary)} - {but})]
            if not found or time.monotonic() > until:
                return found
            time.sleep(0.05)


@contextlib.contextmanager
def running_sshd(folder: Path) -> Iterator[Sshd]:
    """Run a server; all its processes end with it."""
    (folder / "home" / ".ssh").mkdir(parents=True, mode=0o700)
    (folder / "tmp").mkdir()
    own = folder / "home" / ".ssh"
    for key in (folder / "host_key", own / "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (folder / "authorized_keys").write_text((own / "id_ed25519.pub").read_text())
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # as its service does
    for _ in range(5):  # somebody else may take the port meanwhile
        port = _free_port()
        process = subprocess.Popen(
            [PATH, "-D", "-e", "-f", _configuration(folder, port)], stderr=(folder / "log").open("wb")
        )
        if _listens(process, port):
            break
    else:
        raise AssertionError((folder / "log").read_text())
    server = Sshd(folder, port, process)
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (own / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    try:
        yield server
    finally:
        server.drop()
        process.terminate()
        process.wait()
        for pid in server.programs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _configuration(folder: Path, port: int) -> Path:
    path = folder / "sshd_config"
    path.write_text(f"""
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/pid
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
SetEnv TMPDIR={folder}/tmp
""")
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(process: subprocess.Popen, port: int) -> bool:
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            return connection.recv(4) == b"SSH-"
        time.sleep(0.02)
    return False


def _descendants(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found += [int(entry.name), *_descendants(int(entry.name))]
    return found
