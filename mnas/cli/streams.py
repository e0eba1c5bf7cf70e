"""Handle standard output and error that are closed from the start, a pipe whose reader has ended, or a full disk.

`mnas show A | head -1` prints its first line and ends with exit code 0, without an error about the pipe. Output that
cannot be written is a failure: `mnas show A > /dev/full` ends with one line and exit code 2.
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
"""Exit code where output could not be written."""


def open_streams() -> None:
    """Make all three standard streams usable, and their output encodable.

    Where a stream is closed (`mnas runs >&-`), the next file to be opened, perhaps a study's database, would get its
    number and all printed output. So the null device takes such a number first.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number, which is this one
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # a file name that is not UTF-8, or a terminal with few characters, must not end the command
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = _thread_failed


_report = threading.excepthook


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Report a thread's failure, except for that of a progress bar whose reader has ended."""
    if not (isinstance(failure.exc_value, BrokenPipeError) and reader_gone()):
        _report(failure)


def reader_gone() -> bool:
    """Return whether standard output or error is a pipe (or a terminal) whose reader has ended."""
    if not hasattr(select, "poll"):
        return True  # Windows reports a broken pipe as one of these
    poll = select.poll()
    for number in (1, 2):
        with contextlib.suppress(OSError):
            os.fstat(number)
            poll.register(number, select.POLLOUT)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def is_broken_pipe(error: BaseException) -> bool:
    """Return whether `error` means that the reader of the output has ended.

    Rich turns that error into an exit with code 1 and closes standard output.
    """
    if isinstance(error, SystemExit):
        return error.code == 1 and isinstance(error.__context__, BrokenPipeError)
    return isinstance(error, BrokenPipeError) and reader_gone()


def complain(text: str) -> None:
    """Print a line to standard error, if the process has one."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def close_streams(code: int) -> int:
    """Flush the buffered output as the last write, and return `code`, or `FULL` where that failed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            pass
        except (OSError, ValueError) as error:
            if stream is sys.stdout:
                full = isinstance(error, OSError) and error.errno == errno.ENOSPC
                reason = "no space left on device" if full else str(error)
                if code == 0:
                    complain(f"mnas: cannot write standard output: {reason}")
                    code = FULL
        else:
            continue
        _to_nowhere(stream)
    return code


def _to_nowhere(stream: TextIO) -> None:
    """Send the stream's buffer to the null device, so that Python's own flush at the end does not fail."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        stream.flush()
