"""One thread for torch in every test and the processes it starts.

Small networks gain nothing from more, and where other work shares the cores the threads of one process wait for each
other: the tests of nn/ and zoo/ took 12 s with one thread and 200 s with two.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
