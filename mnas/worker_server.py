"""First import of the server that children are forked from; it makes the server end with the process that started it.

The server ignores signals to the process group: the main process handles them and asks the children to save their work.
"""

import os
import signal

from mnas.children import ASKING, end_with

PARENT = "MNAS_SERVER_OF"
"""Environment variable with the main process's number, set while it starts its server."""

number: int | None = None
"""Process number of the server, in itself and in its children; None in other processes."""

if PARENT in os.environ:
    number = os.getpid()
    for asking in ASKING:
        signal.signal(asking, signal.SIG_IGN)
    end_with(int(os.environ.pop(PARENT)))
