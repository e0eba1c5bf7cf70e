"""Trainings in child processes, so many side by side: what fails or dies leaves the others alone."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from mnas.architecture import Architecture
from mnas.children import ASKING
from mnas.train.process import STOPPING_S, TrainingStopped
from mnas.workers import begin_child, child_context, ctrl_c_for_us, start_server

MODULES = ("mnas.train.loop",)
"""What every training imports."""


@dataclass(frozen=True)
class Job:
    """One architecture to train."""

    number: int | str
    """Number of the trial, or name of a reference network."""
    arch: Architecture
    folder: Path
    """Where it is trained, and goes on where it was interrupted."""

    @property
    def title(self) -> str:
        """`trial 17`, or a reference's name."""
        return f"trial {self.number}" if isinstance(self.number, int) else self.number


Say = Callable[[str], None]
TrainOne = Callable[[Job, Say], None]
"""Trains a job, or goes on with it, and says how far it is; picklable; ends in a child's SIGTERM, resumable."""


def train_jobs(jobs: Sequence[Job], train_one: TrainOne, workers: int, say: Say) -> dict[int | str, str]:
    """Train the jobs, `workers` side by side, each in a process of its own; the reasons of those that failed.

    With several GPUs the processes take turns with them.

    Raises:
        KeyboardInterrupt: after all processes have been asked to stop, and have.
        TrainingStopped: the same after SIGTERM or SIGHUP, where nothing else listens to them.
    """
    waiting = list(reversed(jobs))
    gpus = _gpus()
    slots = [gpus[i % len(gpus)] for i in reversed(range(workers))]
    busy: dict[Connection, _Child] = {}
    failed: dict[int | str, str] = {}
    with _stop_raised():
        try:
            while waiting or busy:
                while waiting and slots:
                    connection, child = _start(waiting.pop(), train_one, slots.pop())
                    busy[connection] = child
                for ready in wait(list(busy)):
                    assert isinstance(ready, Connection)
                    child = busy[ready]
                    kind, text = _receive(ready, child)
                    if kind == "over":
                        slots.append(child.slot)
                        del busy[ready]
                    if kind == "failed" or (kind == "over" and text):
                        failed[child.job.number] = text
                        say(f"{child.job.title} failed: {text}")
                    elif kind == "says":
                        say(f"{child.job.title}: {text}")
        finally:
            _stop(busy)
    return failed


@contextmanager
def _stop_raised() -> Iterator[None]:
    """While active, the first SIGTERM or SIGHUP raises TrainingStopped; the next does what it did before.

    A handler that is set already (by the command line) stays.
    Without it this process would end, and take its children along before they can save anything.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ASKING - {signal.SIGINT}}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        restore()
        raise TrainingStopped(number, "full training of a run's best")

    before = {number: handler for number, handler in before.items() if handler is signal.SIG_DFL}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


@dataclass
class _Child:
    job: Job
    process: BaseProcess
    slot: str
    """The GPU that it has to itself; empty where they need not be shared out."""
    ended: bool = False
    """Whether it has said how it ended."""


def _start(job: Job, train_one: TrainOne, slot: str) -> tuple[Connection, _Child]:
    context = child_context(MODULES)
    ours, theirs = context.Pipe(duplex=False)
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": slot} if slot else {})}  # read when CUDA is first used
    process = context.Process(target=_child, args=(theirs, os.getpid(), environment, job, train_one))  # type: ignore[attr-defined]
    with ctrl_c_for_us():
        start_server()
        process.start()
    theirs.close()  # so that the end of the child is the end of the pipe
    return ours, _Child(job, process, slot)


def _receive(connection: Connection, child: _Child) -> tuple[str, str]:
    """What the child says next: `says`, `failed` or `done`; `over` at its end, with the reason if it said none."""
    try:
        kind, text = connection.recv()
    except (EOFError, ConnectionResetError):
        child.process.join()
        return "over", "" if child.ended else f"its process died ({_cause(child.process.exitcode)})"
    child.ended |= kind in ("failed", "done")
    return kind, text


def _child(connection: Connection, parent: int, environment: dict[str, str], job: Job, train_one: TrainOne) -> None:
    begin_child(parent, environment)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # how the parent asks for a checkpoint and the end
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        train_one(job, lambda text: connection.send(("says", text)))
    except Exception as error:
        connection.send(("failed", " ".join(str(error).split()) or type(error).__name__))
    else:
        connection.send(("done", ""))


def _gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES takes them, where there are several to share out; else one empty name."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return names if len(names) > 1 else [""]


def _cause(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "killed, perhaps out of memory"
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _stop(busy: Mapping[Connection, _Child]) -> None:
    """Ask for the end; the end of a child is that of its pipe.

    multiprocessing takes children for dead once their fork server is, and a signal to the process group ends that.
    """
    alive = dict(busy)
    try:
        for child in busy.values():
            _signal(child.process, signal.SIGTERM)
        deadline = time.monotonic() + STOPPING_S
        while alive and (remaining_s := deadline - time.monotonic()) > 0:
            for ready in wait(list(alive), remaining_s):
                assert isinstance(ready, Connection)
                try:
                    ready.recv()
                except (EOFError, OSError):
                    del alive[ready]
    finally:  # also at a second Ctrl-C
        for child in alive.values():
            _signal(child.process, getattr(signal, "SIGKILL", signal.SIGTERM))
        for child in busy.values():
            child.process.join()


def _signal(process: BaseProcess, number: int) -> None:
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)
