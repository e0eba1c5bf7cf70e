"""Candidates are evaluated in child processes of this machine.

One process a slot, also where there is one slot: a candidate that kills its process (out of memory) is then a failed
trial and not the end of the search. Children die with their parent, whatever kills it, and leave Ctrl-C to it. They are
forked from a server that has imported what they need (seconds of CPU for torch and timm) and has done nothing else.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from pathlib import Path

from mnas import worker_server
from mnas.architecture import Architecture
from mnas.children import ASKING, end_with, lasting
from mnas.evaluate.evaluation import Evaluation, EvaluationError

Evaluate = Callable[[Architecture, int, Path], Evaluation]
"""(architecture, seed, where to keep the weights) -> Evaluation; picklable; raises EvaluationError for a candidate's
own failure. What it imports when it is called stands in its attribute `modules`, if it has one."""

DEATHS = 2
"""A candidate whose process dies this often has failed; once may be the machine's fault."""

PROCESS_DIED = f"its process died {DEATHS} times (out of memory?)"
"""The reason of such a failure."""


@dataclass(frozen=True)
class Task:
    """One candidate to evaluate."""

    number: int
    arch: Architecture
    seed: int
    weights_path: Path
    evaluate: Evaluate | None = None
    """How, where that is not as all others are evaluated."""


class LocalWorkers:
    """Evaluates tasks in `count` child processes; a context manager that leaves none behind."""

    def __init__(self, evaluate: Evaluate, count: int) -> None:
        self._evaluate = evaluate
        self._slots: list[ProcessPoolExecutor | None] = [None] * count
        self._context = child_context(getattr(evaluate, "modules", ()))

    def __enter__(self) -> "LocalWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        for slot in self._slots:
            _kill(slot)

    def run(self, next_task: Callable[[], Task | None]) -> Iterator[tuple[Task, Evaluation | str]]:
        """Evaluate tasks, as many at once as there are slots; yield each as it finishes, with the reason where it
        failed.

        `next_task` is called whenever a slot is free, and again after every yield; None means that there is nothing
        now.

        Raises:
            Exception: whatever `evaluate` raises that is no EvaluationError (a full disk, a bug), as it is.
        """
        busy: dict[Future[Evaluation], tuple[int, Task, int]] = {}
        free = list(range(len(self._slots)))
        while True:
            while free and (task := next_task()):
                slot = free.pop()
                busy[self._submit(slot, task)] = (slot, task, 0)
            if not busy:
                return
            future = next(iter(wait(busy, return_when=FIRST_COMPLETED).done))
            slot, task, deaths = busy.pop(future)
            try:
                outcome: Evaluation | str = future.result()
            except EvaluationError as error:
                outcome = str(error)
            except BrokenProcessPool:
                self._slots[slot] = None
                if deaths + 1 < DEATHS:
                    busy[self._submit(slot, task)] = (slot, task, deaths + 1)
                    continue
                outcome = PROCESS_DIED
            free.append(slot)
            yield task, outcome

    def _submit(self, slot: int, task: Task) -> Future[Evaluation]:
        executor = self._slots[slot]
        if executor is None:
            executor = ProcessPoolExecutor(
                1, mp_context=self._context, initializer=begin_child, initargs=(os.getpid(), dict(os.environ))
            )
            self._slots[slot] = executor
        try:
            with ctrl_c_for_us():
                start_server()
                return executor.submit(task.evaluate or self._evaluate, task.arch, task.seed, task.weights_path)
        except BrokenProcessPool:  # died between two tasks: no task's fault
            self._slots[slot] = None
            return self._submit(slot, task)


def child_context(modules: Sequence[str]) -> BaseContext:
    """Starts processes that have imported `modules` already, where the system can fork."""
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if modules:
        context.set_forkserver_preload(list(modules))
    return context


def start_server() -> None:
    """Start the server that children are forked from, if it does not run; it ends with this process."""
    if sys.platform == "win32":
        return
    from multiprocessing import forkserver

    imports: list[str] = forkserver._forkserver._preload_modules  # type: ignore[attr-defined]
    if worker_server.__name__ not in imports:
        forkserver.set_forkserver_preload([worker_server.__name__, *imports])
    os.environ[worker_server.PARENT] = str(os.getpid())
    try:
        lasting(forkserver.ensure_running)
    finally:
        os.environ.pop(worker_server.PARENT, None)


def _forked() -> None:
    """In a forked process: forget its parent's server, which is no child of this process and ends with the parent."""
    module = sys.modules.get("multiprocessing.forkserver")
    if module is None:
        return
    server = module._forkserver
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
    server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None
    server._lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _kill(executor: ProcessPoolExecutor | None) -> None:
    if executor is not None:
        for process in list((executor._processes or {}).values()):
            process.kill()
        executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def ctrl_c_for_us() -> Iterator[None]:
    """Processes that are started meanwhile never see Ctrl-C, SIGTERM or SIGHUP, also not while they import."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # as it starts, it unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_child(parent: int, environment: dict[str, str]) -> None:
    """In a new child, whose server knows the environment only as it was when that began."""
    os.environ.clear()
    os.environ.update(environment)
    live_with(parent)


def live_with(parent: int) -> None:
    """In a new child: leave signals to the parent, process number `parent`, and die when it dies."""
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)
    if os.getppid() == parent:
        end_with(parent)
    elif worker_server.number is not None:  # which ends with the parent
        end_with(worker_server.number)
    process = multiprocessing.parent_process()
    assert process is not None

    def watch() -> None:  # also where it died before the call above
        process.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
