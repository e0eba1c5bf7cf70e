"""Evaluate candidates in child processes of this machine.

Each slot has its own process, even if there is only one slot. A candidate that kills its process (out of memory) is
then a failed trial and does not end the search. Children die with their parent and leave Ctrl-C to it. They are forked
from a server that has only imported their modules, which saves seconds of CPU for torch and timm.
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
from mnas.candidate import Candidate
from mnas.children import ASKING, end_with, lasting
from mnas.evaluate.evaluation import Evaluation, EvaluationError, Step

Evaluate = Callable[[Candidate, Step, int, Path], Evaluation]
"""Picklable function (candidate, step, seed, path for the weights) -> Evaluation.

It raises EvaluationError if the candidate itself fails. An optional attribute `modules` lists its lazy imports."""

DEATHS = 2
"""Number of deaths of its process after which a candidate has failed; one may be the machine's fault."""

PROCESS_DIED = f"its process died {DEATHS} times, perhaps because it ran out of memory"
"""Reason of a failure after `DEATHS` deaths."""


@dataclass(frozen=True)
class Task:
    """One candidate to evaluate."""

    number: int
    candidate: Candidate
    seed: int
    weights_path: Path
    step: Step = "training"
    evaluate: Evaluate | None = None
    """Evaluation function of this task; None for that of all others."""


class LocalWorkers:
    """A context manager that evaluates tasks in `count` child processes, and ends them on exit."""

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
        """Evaluate tasks, one per slot at a time; yield each finished task with its evaluation or reason of failure.

        `next_task` is called whenever a slot is free, and again after every yield; None means that no task is ready.

        Raises:
            Exception: any exception of `evaluate` other than EvaluationError (a full disk, a bug), unchanged.
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
                evaluate = task.evaluate or self._evaluate
                return executor.submit(evaluate, task.candidate, task.step, task.seed, task.weights_path)
        except BrokenProcessPool:  # the process died between two tasks, so no task has failed
            self._slots[slot] = None
            return self._submit(slot, task)


def child_context(modules: Sequence[str]) -> BaseContext:
    """Return a context whose processes have already imported `modules`, if the system can fork."""
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if modules:
        context.set_forkserver_preload(list(modules))
    return context


def start_server() -> None:
    """Start the server that children are forked from, unless it runs; it ends with this process."""
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
    """Forget the parent's server in a forked process: it is not this process's child and ends with the parent."""
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
    """Shield processes that start within this context from Ctrl-C, SIGTERM and SIGHUP, even while they import."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its start would unblock SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_child(parent: int, environment: dict[str, str]) -> None:
    """Initialise a new child: set the environment, which the server copied when it started, and call `live_with`."""
    os.environ.clear()
    os.environ.update(environment)
    live_with(parent)


def live_with(parent: int) -> None:
    """Make a new child leave signals to its parent, process number `parent`, and die when the parent dies."""
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)
    if os.getppid() == parent:
        end_with(parent)
    elif worker_server.number is not None:  # the server ends with the parent
        end_with(worker_server.number)
    process = multiprocessing.parent_process()
    assert process is not None

    def watch() -> None:  # also covers a parent that died before the call above
        process.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
