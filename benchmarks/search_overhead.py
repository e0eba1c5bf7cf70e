"""What a search costs beside its candidates: milliseconds per trial of controller, study and loop, and how they grow.

    python benchmarks/search_overhead.py [--trials 1000] [--controllers ppo,evolution,random]

The evaluator and the measurement return at once, so nothing but our own work is left: drawing and learning
(controller), writing the SQLite study (study), and the rest: decoding, costs, passing tasks to a worker process, the
front (loop). The report is left out.
"""

import argparse
import collections
import functools
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mnas.arch import Arch
from mnas.controller.closed import ClosedBatches
from mnas.evaluate.evaluation import Evaluation
from mnas.latency.fleet import Measured
from mnas.latency.latency import Latency
from mnas.objective import Objective, Sharing
from mnas.search.loop import search
from mnas.search.problem import Plan, Problem
from mnas.search.progress import Watcher
from mnas.space.named import SPACES
from mnas.study import Run, open_run

PARTS = {
    "controller": (ClosedBatches, ("draw", "close")),
    "study": (Run, ("add", "note", "tell", "set", "log")),
}


def evaluate(arch: Arch, seed: int, weights_path: Path) -> Evaluation:
    accuracy = int(arch.fingerprint[:8], 16) / 0x1_0000_0000
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
    """Seconds spent in each part, and in all, up to the close of each batch."""

    def __init__(self) -> None:
        self.spent: collections.Counter[str] = collections.Counter()
        self.marks = [(0, time.perf_counter(), collections.Counter())]

    def timed(self, part: str, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent[part] += time.perf_counter() - start

        return call

    def say(self, text: str) -> None:
        pass

    def progress(self, progress) -> None:
        pass

    def updated(self, run: Run) -> None:
        self.marks.append((len(run.trials), time.perf_counter(), self.spent.copy()))

    def ms_per_trial(self, first: int, last: int) -> dict[str, float]:
        """Between the batches that closed at or after `first` and `last` trials."""
        (n0, t0, s0), (n1, t1, s1) = (next(m for m in self.marks if m[0] >= n) for n in (first, last))
        parts = {part: (s1[part] - s0[part]) / (n1 - n0) * 1e3 for part in PARTS}
        return {**parts, "loop": (t1 - t0) / (n1 - n0) * 1e3 - sum(parts.values())}


def run_search(controller: str, trials: int) -> Timer:
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
        candidates_per_update=20,
        latency_limit=float("inf"),
        max_size_mb=float("inf"),
        max_memory_mb=float("inf"),
        keep_models_mb=1.0,
    )
    try:
        with tempfile.TemporaryDirectory() as folder, open_run(Path(folder) / "run", {}) as run:
            search(run, problem, plan, timer)
    finally:
        for cls, name, original in originals:
            setattr(cls, name, original)
    return timer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--controllers", default="ppo,evolution,random")
    options = parser.parse_args()
    table = Table("controller", "trials", *(f"{part} ms" for part in (*PARTS, "loop")), "all ms", title="per trial")
    for name in options.controllers.split(","):
        timer = run_search(name, options.trials)
        for first, last in ((0, 100), (options.trials - 100, options.trials), (0, options.trials)):
            parts = timer.ms_per_trial(first, last)
            values = [*parts.values(), sum(parts.values())]
            table.add_row(name, f"{first}-{last}", *(f"{value:.1f}" for value in values))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
