"""What all tests have in common.

One thread for torch in every test and the processes it starts: small networks gain nothing from more, and where other
work shares the cores the threads of one process wait for each other (the tests of nn/ and zoo/ took 12 s with one
thread and 200 s with two). The server that candidates' processes are forked from, and those that tests start
(started.py), imports what they need at once, also what our code imports late. Hypothesis tries the same examples every
time, and no test fails for being slow.

A file's tests run in one process, which makes what they share once. `make test` begins with the files that take longest
so that no process waits for another at the end; `make test-fast` leaves them out.
"""

import functools
import multiprocessing
import os
import random
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from long_files import EXPORTERS, LONG
from xdist.scheduler import LoadFileScheduling

multiprocessing.set_forkserver_preload(
    [
        *("mnas.search.run_search", "mnas.proxycheck.run", "mnas.evaluate.proxy", "mnas.report.html"),
        *("mnas.cli.conclusion", "mnas.cli.shortlist", "mnas.full_training.best", "mnas.train.loop"),
        *("alembic.command", "optuna.storages", "pandas", "plotly.graph_objects", "sklearn.datasets"),
    ]
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # needed later; started here, its imports print their warnings only once
    forkserver.ensure_running()
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


class Scheduling(LoadFileScheduling):
    """Files as they come, the long ones first; those that write ExecuTorch or ONNX files go to one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "exporters" if file.removeprefix("tests/") in EXPORTERS else file


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out the files that take longest (tests/long_files.py)")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.getoption("--fast") and _place(collection_path) < len(LONG) else None


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is slow
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _place(item.path))
    cases: dict[str, list[pytest.Function]] = {}
    for item in items:
        if (
            isinstance(item, pytest.Function)
            and item.get_closest_marker("sample")
            and not item.get_closest_marker("slow")
        ):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for test in cases.values():
        sample = _sample(test)
        for item in test:
            if item not in sample:
                item.add_marker(pytest.mark.slow)


def _sample(cases: list[pytest.Function]) -> list[pytest.Function]:
    """Return as many cases as the marker says, and more until each value of each parameter is among them."""
    [count] = cases[0].get_closest_marker("sample").args
    values = {case: {(name, repr(value)) for name, value in case.callspec.params.items()} for case in cases}
    waiting = random.Random(cases[0].originalname).sample(cases, len(cases))
    sample: list[pytest.Function] = []
    covered: set[tuple[str, str]] = set()
    while waiting:
        case = max(waiting, key=lambda case: len(values[case] - covered))
        if len(sample) >= count and values[case] <= covered:
            break
        waiting.remove(case)
        sample.append(case)
        covered |= values[case]
    return sample


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return Scheduling(config, log)


@functools.cache
def _place(path: Path) -> int:
    """Return the place of a file among the long ones, or what is behind them all."""
    name = path.relative_to(Path(__file__).parent).as_posix() if path.is_relative_to(Path(__file__).parent) else ""
    return LONG.index(name) if name in LONG else len(LONG)
