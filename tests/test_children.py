"""Children end with their parent, whatever kills it and whatever they are doing."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from mnas import children
from mnas.candidate import Candidate
from mnas.latency.onboard import script
from mnas.zoo.architectures import named_arch

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at /proc")

ENDLESS = "print('runs', flush=True); import itertools; all(itertools.repeat(True))\n"
"""Native code that never returns to Python, so that Python's signal handlers never run."""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], seconds: float = 3.0) -> bool:
    end = time.monotonic() + seconds
    while any(map(lives, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(lives, pids))


def descendants(pid: int) -> list[int]:
    below = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            below += [child, *descendants(child)]
    return below


def never_returns(*_: object) -> None:
    all(itertools.repeat(True))


# Programs of parents: each prints the processes that it started, and waits


def spawns_in_a_thread_that_ends(folder: str) -> None:
    program = Path(folder) / "endless.py"
    program.write_text(ENDLESS)
    found = []
    with tempfile.TemporaryFile() as errors:
        thread = threading.Thread(target=lambda: found.append(children.spawn(str(program), errors=errors)))
        thread.start()
        thread.join()
        assert found[0].stdout.readline() == b"runs\n"
        time.sleep(0.2)  # the thread has ended, but not the child
        assert found[0].poll() is None
        say(found[0].pid)


def searches(folder: str) -> None:
    from mnas.workers import LocalWorkers, Task

    tasks = iter(
        [
            Task(
                number=0,
                candidate=Candidate(arch=named_arch("mnasnet-a1"), input_size=32),
                seed=0,
                weights_path=Path(folder),
            )
        ]
    )
    announce_when(1)
    with LocalWorkers(never_returns, 1) as workers:
        list(workers.run(lambda: next(tasks, None)))


def trains_a_shortlist(folder: str) -> None:
    from mnas.shortlist.pool import Job, train_jobs

    announce_when(2)
    jobs = [
        Job(number=n, candidate=Candidate(arch=named_arch("mnasnet-a1"), input_size=32), folder=Path(folder))
        for n in range(2)
    ]
    train_jobs(jobs, never_returns, 2, print)


class Endless:
    """A data set for torch's DataLoader."""

    def __len__(self) -> int:
        return 8

    __getitem__ = never_returns


def reads_images(folder: str) -> None:
    from torch.utils.data import DataLoader

    from mnas.data.workers import Loaded, loader_options

    announce_when(2)
    next(Loaded(DataLoader(Endless(), **loader_options(2))))


def announce_when(count: int) -> None:
    """Print the processes once a child and `count` processes below it, or `count` children, compute."""

    def watch() -> None:
        while len([pid for pid in descendants(os.getpid()) if seconds_of(pid) > 0.1]) < count:
            time.sleep(0.05)
        say(*descendants(os.getpid()))

    threading.Thread(target=watch, daemon=True).start()


def seconds_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


def say(*pids: int) -> None:
    print(*pids, flush=True)


PARENTS = {
    "a program": spawns_in_a_thread_that_ends,
    "candidates": searches,
    "a shortlist": trains_a_shortlist,
    "readers of images": reads_images,
}


def _stays(folder: str, kind: str) -> None:
    PARENTS[kind](folder)
    signal.pause()


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "a shortlist")) for kind in PARENTS]
)
def test_children_in_native_code_end_when_their_parent_is_killed(tmp_path, kind):
    parent = own_server(tmp_path, kind)
    pids = list(map(int, parent.stdout.readline().split()))
    assert pids
    assert all(map(lives, pids))
    parent.kill()
    parent.wait()
    assert gone(pids)


def own_server(folder: Path, kind: str) -> "subprocess.Popen[bytes]":
    """A process with its own fork server; tests otherwise share one, which must not end with any of them."""
    code = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(children.__file__).parents[1])]!r}
if __name__ == "__main__":
    import test_children
    test_children._stays({str(folder)!r}, {kind!r})
"""
    (folder / "parent.py").write_text(code)
    return subprocess.Popen([sys.executable, str(folder / "parent.py")], stdout=subprocess.PIPE)


def test_a_child_that_begins_after_its_parents_end_does_not_stay():
    with pytest.raises(SystemExit, match="1"):
        _in_a_fork(lambda: children.end_with(os.getppid() + 1))


def _in_a_fork(action) -> None:
    pid = os.fork()
    if pid == 0:
        action()
        os._exit(0)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def test_ending_a_child_ends_what_it_started(tmp_path):
    program = tmp_path / "parent.py"
    program.write_text(
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with tempfile.TemporaryFile() as errors:
        process = children.spawn(str(program), errors=errors)
        grandchild = int(process.stdout.readline())
        assert lives(grandchild)
        children.end(process, 0.1)
    assert process.returncode == -signal.SIGKILL
    assert gone([grandchild])


def test_all_remaining_children_can_be_killed(tmp_path):
    (tmp_path / "endless.py").write_text(ENDLESS)
    with tempfile.TemporaryFile() as errors:
        process = children.spawn(str(tmp_path / "endless.py"), errors=errors)
        assert process.stdout.readline() == b"runs\n"
        children.kill_all()
        assert process.wait(3) == -signal.SIGKILL


def test_boards_have_the_same_end_of_children_as_this_machine():
    """`script.py` has a copy of the function, because it runs on devices without mnas."""
    assert _in_child(script.end_with) == _in_child(children.end_with) == signal.SIGKILL


def _in_child(end_with) -> int:
    """Return the signal that the kernel sends to a process after `end_with`, by PR_GET_PDEATHSIG."""
    import ctypes

    reader, writer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        end_with(parent)
        found = ctypes.c_int()
        ctypes.CDLL(None).prctl(2, ctypes.byref(found), 0, 0, 0)
        os.write(writer, bytes([found.value]))
        os._exit(0)
    os.waitpid(pid, 0)
    with contextlib.closing(os.fdopen(reader, "rb")) as pipe:
        return pipe.read(1)[0]


def _hangs_natively(signals_leave_s: float) -> None:
    import hashlib

    from mnas.cli import signals

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signals.LEAVE_S = signals._Patience.seconds = signals_leave_s
    signals.listen()
    threading.Timer(0.2, print, ["hangs"], {"flush": True}).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # an hour without handling signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_a_command_that_hangs_in_native_code(number, code):
    from started import Started

    process = Started(_hangs_natively, 0.3)
    assert process.stdout.readline() == "hangs\n"
    process.send_signal(number)
    assert process.wait(10) == code
