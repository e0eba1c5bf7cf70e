"""Child processes, each of which ends with its parent, however the parent ends, and leaves no child of its own behind.

On Linux the kernel kills a child when the *thread* that started it ends. So the main thread starts children, or a
thread that lives as long as the process. A fork or a change of user clears this setting, so every process sets it
again as its first act (`end_with`). On other systems a thread watches the parent.

A child also starts by running this file (`python children.py PARENT PROGRAM ...`), so it imports nothing from mnas.
"""

import contextlib
import ctypes
import multiprocessing
import os
import queue
import runpy
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import IO, Any, TypeVar

T = TypeVar("T")

ASKING = frozenset(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask a process to end. The parent handles signals to the group, and then ends its children."""
MOST_WORKERS = 256
"""Largest number of concurrent children of one kind."""
END_S = 2.0
"""Time in seconds that a child gets to end by itself once its input has ended."""
_LOOK_S = 0.5
_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Make this process end when its parent, process `parent`, ends; immediately if the parent has ended already.

    On Linux this also kills a process that never returns from native code.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    elif hasattr(os, "getppid"):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # the parent ended before the kernel was asked
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


def spawn(
    program: str,
    arguments: Sequence[str] = (),
    *,
    errors: IO[bytes],
    environment: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Run a Python file as a child with pipes for input and output.

    The child has its own session, so only the parent receives Ctrl-C.

    Args:
        errors: file for the child's standard error.
        environment: variables to add to this process's environment.
        descriptors: further file descriptors that the child inherits.
    """
    # -P keeps the program's folder off the import path, where its modules would shadow others.
    command = [sys.executable, "-P", __file__, str(os.getpid()), program, *arguments]
    process = lasting(
        lambda: subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            pass_fds=descriptors,
            start_new_session=True,
        )
    )
    _spawned.add(process)
    return process


def end(process: "subprocess.Popen[bytes]", patience_s: float = END_S) -> None:
    """Wait for a child of `spawn` to end; kill it and all its children after `patience_s` seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    kill(process)
    with contextlib.suppress(subprocess.TimeoutExpired):  # a process that hangs in a driver cannot be killed
        process.wait(5)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a child of `spawn` and all its children."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # also reaches the children of a child that has ended
    process.kill()


def kill_all() -> None:
    """Kill all running children of `spawn` and of multiprocessing."""
    for process in list(_spawned):
        if process.poll() is None:
            kill(process)
    for child in multiprocessing.active_children():
        child.kill()


def lasting(start: Callable[[], T]) -> T:
    """Return `start()`, called in a thread that lives as long as this process: the main one, or one for all others."""
    if threading.current_thread() is threading.main_thread():
        return start()
    with _starting:
        if _starter.thread is None:
            _starter.thread = threading.Thread(target=_work, args=(_starter.queue,), daemon=True)
            _starter.thread.start()
    done: Future[T] = Future()
    _starter.queue.put((start, done))
    return done.result()


class _Starter:
    """The thread that starts children on behalf of other threads; it begins when it is first needed."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.queue: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()


def _work(waiting: "queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]") -> None:
    while True:
        start, done = waiting.get()
        try:
            done.set_result(start())
        except BaseException as error:  # the caller handles it
            done.set_exception(error)
        del start, done


def _forked() -> None:
    """Forget the thread and the children in a forked process, as they belong to the parent."""
    global _starter, _starting, _spawned
    _starter, _starting, _spawned = _Starter(), threading.Lock(), weakref.WeakSet()


_spawned: "weakref.WeakSet[subprocess.Popen[bytes]]" = weakref.WeakSet()
_starter, _starting = _Starter(), threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _main(parent: str, *program: str) -> None:
    """Run a program as the child of process `parent`, a number as text."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the thread that started it may have blocked some
    end_with(int(parent))
    sys.argv[:] = program
    runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    _main(*sys.argv[1:])


def signal_name(stop: KeyboardInterrupt) -> str:
    """Return the name of the signal behind `stop`: Ctrl-C, SIGTERM or SIGHUP."""
    number = getattr(stop, "number", signal.SIGINT)
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
