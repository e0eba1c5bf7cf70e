"""Silence the runtimes' native code, which prints on standard error past Python and its logging.

Examples are LiteRT's `INFO: Created TensorFlow Lite XNNPACK delegate` and ExecuTorch's description of the processor.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

_STDERR = 2
"""File descriptor of standard error, the one that native code writes to."""


@contextlib.contextmanager
def runtimes_quiet() -> Iterator[None]:
    """Discard what anything prints on standard error while the context lasts, except the log lines of mnas.

    Runtimes also raise an exception for an error that matters, so none is lost. The context acts on the whole process:
    use it only where a command opens its models, never in a function of the library.
    """
    try:
        stderr_copy = os.dup(_STDERR)
    except OSError:  # a process without standard error
        yield
        return
    logger = logging.getLogger("mnas")
    try:
        sys.stderr.flush()
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), _STDERR)
        with open(os.dup(stderr_copy), "w") as stderr:  # a separate copy, as `with` closes it
            handler = logging.StreamHandler(stderr)
            logger.addHandler(handler)
            try:
                yield
            finally:
                logger.removeHandler(handler)
    finally:
        sys.stderr.flush()  # before the descriptor is restored: discards what Python buffered, too
        os.dup2(stderr_copy, _STDERR)
        os.close(stderr_copy)
