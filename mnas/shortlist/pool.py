"""Run trainings in parallel, each in a child process; one that fails or dies does not affect the others."""

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

from mnas.candidate import Candidate
from mnas.children import ASKING
from mnas.train.process import STOPPING_S, TrainingStopped
from mnas.workers import begin_child, child_context, ctrl_c_for_us, start_server

MODULES = ("mnas.train.loop",)
"""Modules that every training imports."""


@dataclass(frozen=True)
class Job:
    """One candidate to train."""

    number: int | str
    """Number of the trial, or name of a reference network."""
    candidate: Candidate
    folder: Path
    """Folder of the training, which resumes an interrupted one."""

    @property
    def title(self) -> str:
        """Return `trial 17`, or a reference's name."""
        return f"trial {self.number}" if isinstance(self.number, int) else self.number


Say = Callable[[str], None]
TrainOne = Callable[[Job, Say], None]
"""Trains or resumes a job and reports its progress; picklable; stops, resumable, at SIGTERM in a child process."""


def train_jobs(jobs: Sequence[Job], train_one: TrainOne, workers: int, say: Say) -> dict[int | str, str]:
    """Train the jobs, `workers` in parallel, each in its own process; return the reason for each that failed.

    Several GPUs are assigned to the processes in turn.

    Raises:
        KeyboardInterrupt: Ctrl-C; all processes have stopped.
        TrainingStopped: SIGTERM or SIGHUP, if no other handler is set; all processes have stopped.
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
                    elif kind == "line":
                        say(f"{child.job.title}: {text}")
        finally:
            _stop(busy)
    return failed


@contextmanager
def _stop_raised() -> Iterator[None]:
    """Raise TrainingStopped at the first SIGTERM or SIGHUP inside the context; a later one has its previous effect.

    A handler that is already set (by the command line) stays. Without one this process would end and kill its children
    before they save anything.
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
    """The GPU of this process; empty if GPUs are not assigned."""
    ended: bool = False
    """Whether the process has reported its end."""


def _start(job: Job, train_one: TrainOne, slot: str) -> tuple[Connection, _Child]:
    context = child_context(MODULES)
    ours, theirs = context.Pipe(duplex=False)
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": slot} if slot else {})}  # CUDA reads this at its first use
    process = context.Process(target=_child, args=(theirs, os.getpid(), environment, job, train_one))  # type: ignore[attr-defined]
    with ctrl_c_for_us():
        start_server()
        process.start()
    theirs.close()  # so that the pipe closes when the child ends
    return ours, _Child(job, process, slot)


def _receive(connection: Connection, child: _Child) -> tuple[str, str]:
    """Return the child's next message: `line`, `failed`, `done`, or `over` with the reason if it died."""
    try:
        kind, text = connection.recv()
    except (EOFError, ConnectionResetError):
        child.process.join()
        return "over", "" if child.ended else f"its process died ({_cause(child.process.exitcode)})"
    child.ended |= kind in ("failed", "done")
    return kind, text


def _child(connection: Connection, parent: int, environment: dict[str, str], job: Job, train_one: TrainOne) -> None:
    begin_child(parent, environment)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent asks for a checkpoint and an end by this signal
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        train_one(job, lambda text: connection.send(("line", text)))
    except Exception as error:
        connection.send(("failed", " ".join(str(error).split()) or type(error).__name__))
    else:
        connection.send(("done", ""))


def _gpus() -> list[str]:
    """Return GPUs as CUDA_VISIBLE_DEVICES names them, if there are several to assign; else one empty name."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return names if len(names) > 1 else [""]


def _cause(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "killed, perhaps out of memory"
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _stop(busy: Mapping[Connection, _Child]) -> None:
    """Ask the children to stop, and kill those whose pipe is still open after `STOPPING_S`.

    multiprocessing reports children as dead once their fork server ends, which a signal to the process group causes.
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
