"""Measure the overhead of a search: milliseconds per trial of controller, study and loop, and how they grow.

    python benchmarks/search_overhead.py [--trials 8000] [--controllers ppo,evolution] [--storages memory,sqlite]

The evaluator and the measurement return immediately, so only the overhead remains. `controller` is drawing and
learning. `study` is writing the study, in memory or, as in `mnas search`, in SQLite. `loop` is the rest: decoding,
costs, passing tasks to a worker process, and the front. The table compares the first and the last eighth of the trials,
from the second batch on, because the first waits for the worker process to start. Milliseconds are CPU time of the
searching process, which other processes hardly affect; the last column is wall-clock time. Reports are not written.
"""

import argparse
import collections
import contextlib
import functools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.storages import InMemoryStorage
from rich.console import Console
from rich.table import Table

from mnas.arch import Arch
from mnas.controller.closed import ClosedBatches
from mnas.evaluate.evaluation import Evaluation
from mnas.latency.fleet.fleet import Measured
from mnas.latency.latency import Latency
from mnas.objective import Objective, Sharing
from mnas.search.loop import search
from mnas.search.problem import Plan, Problem
from mnas.search.progress import Watcher
from mnas.space.named import SPACES
from mnas.study import Beginning, StudyWriter, begin_study, open_run

BATCH = 20
PARTS = {
    "controller": (ClosedBatches, ("draw", "close")),
    "study": (StudyWriter, ("add", "note", "finish", "set", "log")),
}


def evaluate(arch: Arch, seed: int, weights_path: Path) -> Evaluation:
    accuracy = seed / 0x1_0000_0000  # random, because a controller that converges would end the search
    return Evaluation(
        accuracy=accuracy, accuracies=(accuracy,), val_images=1000, train_s=0.0, images_per_s=0.0, epochs=1
    )


def latency_of(arch: Arch) -> Latency:
    ms = 1 + int(arch.fingerprint[8:], 16) / 0x1_0000_0000
    values = dict.fromkeys(("latency_ms", "low_ms", "high_ms", "ratio", "ratio_low", "ratio_high", "raw_median_ms"), ms)
    rest = {
        "peak_memory_bytes": None,
        "energy_mj": None,
        "against": "reference",
        "stopped_by": "interval",
        "unit": "none",
        "source": "measured",
    }
    return Latency(**values, runs=1, rounds=1, seconds=0.0, drift=0.0, disturbed=0.0, **rest)


def measure(archs):
    for number, arch in archs.items():
        yield number, Measured(latencies={"host": latency_of(arch)}, size_bytes=0)


class Timer(Watcher):
    """A watcher that records CPU seconds of each part and in total, and wall-clock time, when a batch closes."""

    def __init__(self) -> None:
        self.spent: collections.Counter[str] = collections.Counter()
        self.marks: list[tuple[int, collections.Counter[str]]] = []

    def timed(self, part: str, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent[part] += time.process_time() - start

        return call

    def say(self, text: str) -> None:
        pass

    def progress(self, progress) -> None:
        pass

    def updated(self, run: StudyWriter) -> None:
        times = {"all": time.process_time(), "clock": time.perf_counter()}
        self.marks.append((len(run.trials), collections.Counter({**self.spent, **times})))

    def ms_per_trial(self, first: int, last: int) -> dict[str, float]:
        """Return the times between the batches that closed at or after `first` and `last` trials."""
        (n0, s0), (n1, s1) = (next(m for m in self.marks if m[0] >= n) for n in (first, last))
        ms = {part: (s1[part] - s0[part]) / (n1 - n0) * 1e3 for part in (*PARTS, "all", "clock")}
        return {**ms, "loop": ms["all"] - sum(ms[part] for part in PARTS)}


@contextlib.contextmanager
def open_for(storage: str) -> Iterator[StudyWriter]:
    """Open a new run, in SQLite as usual, or in memory with only its log on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        if storage == "sqlite":
            with open_run(Path(folder) / "run", {}) as run:
                yield run
        else:
            memory = InMemoryStorage()
            begin_study(memory, {}, Beginning())
            yield StudyWriter(Path(folder), memory)


def run_search(controller: str, storage: str, trials: int) -> Timer:
    timer = Timer()
    originals = [(cls, name, getattr(cls, name)) for cls, names in PARTS.values() for name in names]
    for part, (cls, names) in PARTS.items():
        for name in names:
            setattr(cls, name, timer.timed(part, getattr(cls, name)))
    space = SPACES["mnasnet"]
    objective = Objective(form="soft", target_latency_ms=1.5, alpha=-0.07, beta=-0.07)
    problem = Problem(
        space=space,
        input_size=224,
        num_classes=10,
        measure=measure,
        evaluate=evaluate,
        references={},
        objective=objective,
        size_bytes=lambda arch: 0,
        sharing=Sharing(targets_ms={"host": objective.target_latency_ms}, weights={}),
    )
    plan = Plan(
        controller=controller,
        seed=0,
        trials=trials,
        hours=10.0,
        workers=1,
        candidates_per_update=BATCH,
        latency_limit=float("inf"),
        max_size_mb=float("inf"),
        max_memory_mb=float("inf"),
        keep_models_mb=1.0,
    )
    try:
        with open_for(storage) as run:
            search(run, problem, plan, timer)
    finally:
        for cls, name, original in originals:
            setattr(cls, name, original)
    return timer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8000)
    parser.add_argument("--controllers", default="ppo,evolution")
    parser.add_argument("--storages", default="memory,sqlite")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns = (*PARTS, "loop", "all", "clock")
    titles = ("controller", "study in", "trials", *(f"{name} ms" for name in columns))
    for controller in options.controllers.split(","):
        for storage in options.storages.split(","):
            timer = run_search(controller, storage, options.trials)
            trials = timer.marks[-1][0]  # fewer if the controller converged
            part = trials // 8
            table = Table(*titles, title="per trial")
            rows = []
            for first, last in ((BATCH, part), (trials - part, trials), (BATCH, trials)):
                ms = timer.ms_per_trial(first, last)
                rows.append([ms[name] for name in columns])
                table.add_row(controller, storage, f"{first:,}-{last:,}", *(f"{value:.2f}" for value in rows[-1]))
            growth = [f"{last / first:.2f}x" for first, last in zip(rows[0], rows[1], strict=True)]
            table.add_row(controller, storage, "last : first", *growth)
            Console(width=100).print(table)


if __name__ == "__main__":
    main()
