"""What all tests have in common.

One thread for torch in every test and the processes it starts: small networks gain nothing from more, and where other
work shares the cores the threads of one process wait for each other (the tests of nn/ and zoo/ took 12 s with one
thread and 200 s with two). The server that candidates' processes are forked from, and those that tests start
(started.py), imports what they need at once, also what our code imports late. Hypothesis tries the same examples every
time, and no test fails for being slow.
"""

import multiprocessing
import os
from multiprocessing import forkserver

import hypothesis

multiprocessing.set_forkserver_preload(
    [
        *("mnas.search.run_search", "mnas.evaluate.proxy", "mnas.report.html", "mnas.train.loop"),
        *("alembic.command", "optuna.storages", "pandas", "plotly.graph_objects", "sklearn.datasets"),
    ]
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # it will be needed, and what it imports is said only once, by whoever starts it
    forkserver.ensure_running()
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")
