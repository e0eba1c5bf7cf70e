"""Child processes. Each ends with its parent, however that ends, and leaves no child of its own behind.

On Linux the kernel kills a child when the *thread* that started it ends, so children are started by the main thread, or
by one that lasts as long as the process. The kernel forgets this over a fork and after a change of user: every process
asks for it anew, as its first act (`end_with`). Elsewhere a thread watches who the parent is.

This file is also the program that a child begins with (`python children.py PARENT PROGRAM ...`), so it imports nothing
of mnas.
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
"""The signals that ask a process to end. Those to a group are the parent's, which then asks its children."""
MOST_WORKERS = 256
"""Children of one kind side by side, at most."""
END_S = 2.0
"""Time that a child has to end by itself once its input has ended."""
_LOOK_S = 0.5
_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Make this process end when process `parent`, which started it, ends; at once if it has ended already.

    It needs no help of this process: on Linux one that computes for ever without Python is killed as well.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    elif hasattr(os, "getppid"):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before it was asked for
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
    """Run a Python file as a child with pipes for input and output, in a session of its own: Ctrl-C is the parent's.

    Args:
        errors: what it writes to standard error goes here.
        environment: added to this process's.
        descriptors: what it inherits besides.
    """
    # -P: modules beside the program are not to be found under their bare names
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
    """Wait for a child of `spawn` that was asked to end; kill it and all that it started when that takes long."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    kill(process)
    with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in a driver cannot even be killed
        process.wait(5)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a child of `spawn` and all that it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # also what an ended one left in its session
    process.kill()


def kill_all() -> None:
    """Kill every child that is left of `spawn` and of multiprocessing."""
    for process in list(_spawned):
        if process.poll() is None:
            kill(process)
    for child in multiprocessing.active_children():
        child.kill()


def lasting(start: Callable[[], T]) -> T:
    """Call `start` in a thread that lives as long as this process: the main one, or one for all other threads."""
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
    """The thread that starts children for others, if there has been need of it."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.queue: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()


def _work(waiting: "queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]") -> None:
    while True:
        start, done = waiting.get()
        try:
            done.set_result(start())
        except BaseException as error:  # the caller's, whatever it is
            done.set_exception(error)
        del start, done


def _forked() -> None:
    """Forget the thread and the children in a forked process: they are the parent's."""
    global _starter, _starting, _spawned
    _starter, _starting, _spawned = _Starter(), threading.Lock(), weakref.WeakSet()


_spawned: "weakref.WeakSet[subprocess.Popen[bytes]]" = weakref.WeakSet()
_starter, _starting = _Starter(), threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _main(parent: str, *program: str) -> None:
    """Run a program as the child of process `parent`, which is given as text."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whatever the thread that started it had blocked
    end_with(int(parent))
    sys.argv[:] = program
    runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    _main(*sys.argv[1:])


def signal_name(stop: KeyboardInterrupt) -> str:
    """Return the name of the signal that asked for the end: Ctrl-C, SIGTERM or SIGHUP."""
    number = getattr(stop, "number", signal.SIGINT)
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
