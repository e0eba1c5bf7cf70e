"""Compare real searches: which controller finds the better front with the same few trials?

    python benchmarks/search_compare.py                      (3 controllers, 3 seeds, 60 trials)
    python benchmarks/search_compare.py --trials 20 --seeds 0,1   (to try it out)

Every search is `mnas search` on scikit-learn's digits as in `mnas demo`, with real training and real latency. The seed
also draws the validation images, so searches of one seed are compared with each other. Hypervolumes are those of the
first 20, 40, ... trials, in accuracy above chance and latency up to twice the target, which is the latency of
MobileNetV2 on the same skeleton. Intervals are 95 %, by Student's t over the seeds. Differences to the last controller
are paired by seed. --out contains every finished search, which the next call skips; an interrupted search resumes.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from scipy import stats

from mnas.objective import hypervolume
from mnas.study import read_run

SETTINGS = [
    "--data",
    "digits",
    "--width",
    "0.25",
    "--input-size",
    "12",
    "--output-stride",
    "8",
    "--epochs",
    "3",
    "--batch-size",
    "32",
    "--fewest-steps",
    "1",
    "--latency-budget-s",
    "0.5",
    "--start-from",
    "none",
]
CHANCE = 0.1
SLOWEST = 2.0
"""Multiple of the target above which latencies add nothing to the hypervolume."""


def search(folder: Path, controller: str, seed: int, trials: int, more: list[str]) -> Path:
    run = folder / f"{controller}-{seed}"
    command = [sys.executable, "-m", "mnas.cli.main", "search", *SETTINGS, "--controller", controller]
    command += ["--seed", str(seed), "--trials", str(trials), "--run", str(run), *more]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr[-2000:])
    print(f"{run.name} after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return run


def hypervolumes(run: Path, marks: list[int]) -> list[float]:
    """Return the hypervolume of the first trials of a run, up to each mark."""
    stored = read_run(run)
    target_ms = stored.attributes["objective"]["target_latency_ms"]
    found = []
    for mark in marks:
        complete = [t for t in stored.trials[:mark] if t.state == "complete"]
        points = [(t.accuracy, t.latency_ms / target_ms) for t in complete]
        found.append(hypervolume(points, (CHANCE, SLOWEST)))
    return found


def with_interval(values: list[float]) -> str:
    """Return the mean and half of its 95 % interval; for one value the mean alone."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.3f} +-{half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/search-compare"), help="folder of the runs (default: %(default)s)"
    )
    parser.add_argument("--controllers", default="surrogate,ppo,random", help="(default: surrogate,ppo,random)")
    parser.add_argument("--seeds", default="0,1,2", help="(default: 0,1,2)")
    parser.add_argument("--trials", type=int, default=60, help="trials of each search (default: 60)")
    options, more = parser.parse_known_args()  # the others go to mnas search
    controllers, seeds = options.controllers.split(","), [int(seed) for seed in options.seeds.split(",")]
    marks = [*range(20, options.trials, 20), options.trials]
    found: dict[str, list[list[float]]] = {name: [] for name in controllers}
    for seed in seeds:  # seed by seed, so that a change of the machine affects all controllers
        for name in controllers:
            run = search(options.out, name, seed, options.trials, more)
            found[name].append(hypervolumes(run, marks))
    print(f"| controller | {' | '.join(f'{mark} trials' for mark in marks)} |\n|---|{'---|' * len(marks)}")
    for name, rows in found.items():
        print(f"| {name} | {' | '.join(with_interval(list(column)) for column in zip(*rows, strict=True))} |")
    last = controllers[-1]
    for name in controllers[:-1]:
        pairs = zip(found[name], found[last], strict=True)
        differences = [[a - b for a, b in zip(ours, theirs, strict=True)] for ours, theirs in pairs]
        columns = [with_interval(list(column)) for column in zip(*differences, strict=True)]
        print(f"| {name} less {last} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
