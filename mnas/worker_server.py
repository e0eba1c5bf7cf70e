"""First import of the server that children are forked from: lets it end with the process that started it.

A signal to the whole process group is for that process, which asks the children to save what they have done.
"""

import os
import signal

from mnas.children import ASKING, end_with

PARENT = "MNAS_SERVER_OF"
"""The environment variable that names the process, while it starts its server."""

number: int | None = None
"""The server's process, in it and in its children; None in all others."""

if PARENT in os.environ:
    number = os.getpid()
    for asking in ASKING:
        signal.signal(asking, signal.SIG_IGN)
    end_with(int(os.environ.pop(PARENT)))
