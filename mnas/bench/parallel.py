"""Parallel searches, one process each, on the available cores."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from mnas.bench.cache import Cache
from mnas.bench.contender import Contender
from mnas.bench.searched import Searched, run_search
from mnas.evaluate.benchmark import Benchmark
from mnas.workers import ctrl_c_for_us, live_with

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
OnDone = Callable[[Contender, Searched, bool], None]
"""Function called with each finished search, and whether it comes from the cache."""


def search_all(
    benchmark: Benchmark, contenders: Sequence[Contender], trials: int, *, workers: int, cache: Cache, on_done: OnDone
) -> dict[Contender, Searched]:
    """Return all searches, from `cache` where possible, the others run in `workers` processes of one thread each.

    Each search is cached as soon as it is done, so an interruption loses only the running ones.

    Raises:
        ValueError: a search fails, or its process is killed; the other running searches are then stopped.
        KeyboardInterrupt: Ctrl-C; raised once all processes have ended.
    """
    searches: dict[Contender, Searched] = {}
    missing = []
    for contender in dict.fromkeys(contenders):
        cached = cache.load(contender, trials)
        if cached is None:
            missing.append(contender)
        else:
            searches[contender] = cached
            on_done(contender, cached, True)
    if not missing:
        return searches
    with _pool(benchmark, min(workers, len(missing))) as pool:
        with ctrl_c_for_us():
            futures: dict[Future[bytes], Contender] = {pool.submit(_search, c, trials): c for c in missing}
        while futures:
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                contender = futures.pop(future)
                try:
                    searched = Searched.from_bytes(future.result())
                except BrokenProcessPool:
                    raise ValueError(
                        f"a search process was killed, perhaps for lack of memory, while {contender.controller} or "
                        "another controller ran; the same command resumes, and --workers 1 needs less memory"
                    ) from None
                cache.keep(contender, searched)
                searches[contender] = searched
                on_done(contender, searched, False)
    return searches


@contextlib.contextmanager
def _pool(benchmark: Benchmark, workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield processes that hold the benchmark, and end all of them."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # libraries read these while loading, so before the processes start
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(os.getpid(), benchmark),
    )
    try:
        yield pool
    finally:
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})


_benchmark: Benchmark
"""Benchmark of a child process."""


def _begin(parent: int, benchmark: Benchmark) -> None:
    import optuna
    import torch

    global _benchmark
    live_with(parent)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    _benchmark = benchmark


def _search(contender: Contender, trials: int) -> bytes:
    return run_search(_benchmark, contender, trials).to_bytes()
