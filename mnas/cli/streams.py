"""Standard output and error as they may be: closed from the start, a pipe whose reader has gone, a disk that is full.

`mnas show A | head -1` wants the first line and no word of the pipe: what has been asked for is done, exit code 0. What
could not be written is a failure: `mnas show A > /dev/full` says so in one line, exit code 2.
"""

import contextlib
import errno
import io
import os
import select
import sys
import threading
from typing import TextIO

FULL = 2
"""The exit code where output could not be written."""


def open_streams() -> None:
    """Make all three standard streams usable, and what is written to them printable.

    Where one is closed (`mnas runs >&-`) the next file that is opened, a study's database perhaps, would get its number
    and whatever is printed: such a number is given to the null device first.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number: this one
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # a file's name that is no UTF-8, or a terminal of few letters, must not end what it only names
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = _thread_failed


_report = threading.excepthook


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """A thread that draws a progress bar for nobody is no news."""
    if not (isinstance(failure.exc_value, BrokenPipeError) and reader_gone()):
        _report(failure)


def reader_gone() -> bool:
    """Whether standard output or error is a pipe (or a terminal) that nobody reads any more."""
    if not hasattr(select, "poll"):
        return True  # Windows: a broken pipe is taken for one of these
    poll = select.poll()
    for number in (1, 2):
        with contextlib.suppress(OSError):
            os.fstat(number)
            poll.register(number, select.POLLOUT)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def is_broken_pipe(error: BaseException) -> bool:
    """Whether `error` says that nobody reads what is printed; rich turns that into an exit with code 1 and takes
    standard output away."""
    if isinstance(error, SystemExit):
        return error.code == 1 and isinstance(error.__context__, BrokenPipeError)
    return isinstance(error, BrokenPipeError) and reader_gone()


def complain(text: str) -> None:
    """A line to standard error, where there is one."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def close_streams(code: int) -> int:
    """Write what is still buffered; the exit code: `code`, unless that failed. Nothing is written after this."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            pass
        except (OSError, ValueError) as error:
            if stream is sys.stdout:
                full = isinstance(error, OSError) and error.errno == errno.ENOSPC
                reason = "no space is left for it" if full else str(error)
                if code == 0:
                    complain(f"mnas: standard output could not be written: {reason}")
                    code = FULL
        else:
            continue
        _to_nowhere(stream)
    return code


def _to_nowhere(stream: TextIO) -> None:
    """What is in its buffer goes to the null device, so that Python's own flush at the end finds nothing to say."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        stream.flush()
