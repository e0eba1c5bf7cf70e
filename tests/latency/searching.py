"""`mnas search` as a separate process, on devices that log every model that they measure."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sshd import Sshd
from started import Started, started_mnas

from mnas.arch import Arch
from mnas.latency import protocol
from mnas.latency.devices import kinds
from mnas.latency.fleet import pool, spread
from mnas.latency.protocol import LIGHT_WIDTH
from mnas.space.named import load_space
from mnas.study import Snapshot, read_run
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import reference_arch
from tests.latency.phones import Phone

PX, CLASSES = 8, 10
TINY = (
    *("--data", "digits", "--width", "0.25", "--input-size", "8", "--output-stride", "8", "--epochs", "1"),
    *("--fewest-steps", "1", "--max-images-per-class", "8", "--workers", "1", "--latency-budget-s", "0.3"),
)
"""Options of a search that is cheap to train and to measure."""

PYTHON = r"""#!{python} -I
import hashlib, os, re, subprocess, sys

child = subprocess.Popen(["{python}", *sys.argv[1:]], stdin=subprocess.PIPE)
ahead = b""
with open(os.path.join(os.path.dirname(__file__), "measured"), "a") as measured:
    while piece := os.read(0, 1 << 16):
        ahead, end = ahead + piece, 0
        for found in re.finditer(rb'"do": "open", "models": \["([^"]+)"', ahead):
            with open(found[1], "rb") as model:
                print(hashlib.sha256(model.read()).hexdigest(), file=measured, flush=True)
            end = found.end()
        ahead = ahead[max(end, len(ahead) - 300):]
        try:
            child.stdin.write(piece)
            child.stdin.flush()
        except OSError:
            break
child.stdin.close()
sys.exit(child.wait())
"""
"""Python of a board that logs every model that it measures."""

TASKSET = """#!/bin/sh
echo "$1" >>"$PHONE_ROOT/pinned"
shift
for word in "$@"; do
  case $word in --graph=*) sha256sum "${word#--graph=}" | cut -c1-64 >>"$PHONE_ROOT/measured" ;; esac
done
exec "$@"
"""
"""`benchmark_model` of a phone that logs every model that it runs."""


def board_python(server: Sshd) -> str:
    """Return a Python for the board's entry that logs what it measures in `server.folder / "measured"`."""
    (server.folder / "measured").write_text("")
    return server.python("recording-python", PYTHON)


def let_it_record(phone: Phone) -> None:
    """Make the phone log what it measures in `phone.root / "measured"`."""
    (phone.root / "measured").write_text("")
    (phone.root / "bin/taskset").write_text(TASKSET)


def entry(name: str, kind: str, **told: object) -> str:
    """Return a table of devices.toml."""
    return "\n".join([f"[{name}]", f'kind = "{kind}"', *(f"{k} = {json.dumps(v)}" for k, v in told.items()), ""])


@dataclass
class Search:
    """Command of a search, its folders and all its output."""

    folder: Path
    """Folder of the run; beside it are the home, devices.toml, and the cache and state of all searches."""
    options: Sequence[str]
    home: Path
    patience: dict[str, float] = field(default_factory=dict)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    def printed(self) -> str:
        """Return the output of all its processes so far."""
        path = self.folder / "printed"
        return path.read_text() if path.exists() else ""

    @contextlib.contextmanager
    def started(self) -> Iterator[Started]:
        """Start a process of the search, which is killed at the end unless it has ended."""
        self.folder.mkdir(exist_ok=True)
        shared = self.folder.parent
        environment = {
            **{f"XDG_{name}_HOME": str(shared / name.lower()) for name in ("CACHE", "STATE", "CONFIG")},
            "HOME": str(self.home),
        }
        patience = {"drift": 9.0, "cool_s": 0.1, **self.patience}
        options = [*TINY, *self.options, "--devices", str(shared / "devices.toml"), "--run", str(self.run_dir)]
        before = functools.partial(_prepare, self.folder, environment, patience)
        process = started_mnas("search", *options, before=before)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()

    def finish(self) -> int:
        """Run a process of the search to its end and return its exit code."""
        with self.started() as process:
            return process.wait()

    def killed_when(self, condition: Callable[[], bool]) -> None:
        """Run a process of the search until the condition is true, then kill it."""
        with self.started() as process:
            self.wait_for(condition, process)
            process.send_signal(signal.SIGKILL)

    def wait_for(self, condition: Callable[[], bool], process: Started, seconds: float = 1500.0) -> None:
        """Wait for the condition while the process runs."""
        until = time.monotonic() + seconds
        while not condition():
            assert process.poll() is None, f"it ended ({process.returncode}) before its time:\n{self.printed()}"
            assert time.monotonic() < until, self.printed()
            time.sleep(0.01)

    def stored(self) -> Snapshot:
        return read_run(self.run_dir)

    def files(self) -> set[str]:
        """Return the digests of the files of all trials and, with targets, of the space's two ends."""
        stored = self.stored()
        ends = stored.attributes.get("reach", {}).values()
        archs = [t.arch for t in stored.trials] + [Arch.from_dict(end["arch"]) for end in ends]
        return {digest(arch) for arch in archs}


def digest(arch: Arch) -> str:
    """Return the digest of the file for a device."""
    return hashlib.sha256(graph_bytes(arch, PX, CLASSES)).hexdigest()


@functools.cache
def references() -> set[str]:
    """Return the digests of the references in searches with these options."""
    space = load_space("mnasnet")
    space = dataclasses.replace(space, skeleton=space.skeleton.scaled(0.25)).with_output_stride(PX)
    arch = reference_arch(space.skeleton)
    return {digest(arch), digest(arch.scale_width(LIGHT_WIDTH))}


def sessions(measured: Path) -> list[str]:
    """Return the digests of the models that a device measured, one per session, without the references."""
    known = references()
    digests = [line for line in measured.read_text().split() if line not in known]
    return [name for name, _ in itertools.groupby(digests)]


def _prepare(folder: Path, environment: dict[str, str], patience: dict[str, float]) -> None:
    """Run in a search's process. It tolerates other programs that slow this machine meanwhile."""
    with (folder / "printed").open("a") as out:
        for number in (1, 2):
            os.dup2(out.fileno(), number)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.chdir(folder)
    os.environ.pop("SSH_AUTH_SOCK", None)
    os.environ.update(environment)
    real = spread.Patience
    pool.Patience = lambda **given: dataclasses.replace(real(**given), **patience)  # type: ignore[assignment,misc]
    kinds.KINDS["host"] = dataclasses.replace(kinds.KINDS["host"], drift=9.0)
    protocol.IMPLAUSIBLE_DRIFT, spread.DISTURBED = 1e6, 2.0
