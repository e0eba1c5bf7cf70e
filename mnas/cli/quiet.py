"""What runtimes print of themselves past Python: LiteRT's `INFO: Created ...`, ExecuTorch's look at the processor."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def runtimes_quiet() -> Iterator[None]:
    """Without what native code prints on standard error meanwhile; an error that matters comes as an exception.

    For the whole process, so only where a command opens its models, never in a library's function.
    """
    try:
        stderr_copy = os.dup(2)
    except OSError:  # a process without standard error
        yield
        return
    logger = logging.getLogger("mnas")
    try:
        sys.stderr.flush()
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        with open(os.dup(stderr_copy), "w") as stderr:
            notices = logging.StreamHandler(stderr)  # the program's own lines are still shown
            logger.addHandler(notices)
            try:
                yield
            finally:
                logger.removeHandler(notices)
    finally:
        sys.stderr.flush()
        os.dup2(stderr_copy, 2)
        os.close(stderr_copy)
