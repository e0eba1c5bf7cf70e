"""Compare short searches that begin with the networks nearest to known ones with searches that begin with draws.

    python benchmarks/first_trials.py [DATA] [--trials 16] [--seeds 0,1] [--max-images-per-class 300] [--epochs 3]

DATA is a data set as in `mnas search`. Each seed has one search with `--start-from none` and one with `--start-from
auto`, the default, both with one worker of one thread. The table has the reference network, MobileNetV2, and the best
trials. --out contains every search; the next call skips those that are finished and resumes an interrupted one.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mnas.study import TrialRecord, objectives_of, read_run
from mnas.study.results import references_of

STARTS = ("none", "auto")
CLOSE_MS = 1.05
"""A trial that takes at most this multiple of the reference's latency counts as equally fast."""


def search(run: Path, start: str, more: Sequence[str]) -> None:
    """Run a whole search, or resume it. Ends the program with the search's error where it fails."""
    command = [sys.executable, "-m", "mnas.cli.main", "search", "--run", str(run), "--start-from", start, *more]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr[-2000:])
    print(f"{run.name} after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def text_of(trial: TrialRecord | None) -> str:
    """Return accuracy, latency and number or name of a trial."""
    if trial is None:
        return "-"
    accuracy, latency_ms = trial.point
    name = f", {trial.name}" if trial.name else ""
    return f"{accuracy:.3f} at {latency_ms:.2f} ms ({trial.label}{name})"


def row(run: Path) -> str:
    """Return a row of the table: reference, most accurate trial, and the same among trials that are as fast."""
    stored = read_run(run)
    reference = references_of(stored)[0]
    [objective] = objectives_of(stored.attributes)
    trials = [trial for trial in stored.trials if trial.state == "complete"]
    fast = [trial for trial in trials if trial.point[1] <= CLOSE_MS * reference.point[1]]
    best = max(trials, key=lambda trial: trial.point[0], default=None)
    best_fast = max(fast, key=lambda trial: trial.point[0], default=None)
    rewards = [objective.reward(*trial.point) for trial in trials]
    names = " | ".join(map(text_of, (reference, best, best_fast)))
    return f"| {run.name} | {names} | {max(rewards) - objective.reward(*reference.point):+.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--max-images-per-class", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build/first-trials"))
    options, more = parser.parse_known_args()
    arguments = ["--data", options.data, "--trials", str(options.trials), "--epochs", str(options.epochs), *more]
    arguments += ["--max-images-per-class", str(options.max_images_per_class), "--workers", "1", "--threads", "1"]
    header = ("search", "reference", "most accurate trial", "most accurate as fast", "best reward - reference's")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}", flush=True)
    for seed in options.seeds.split(","):
        for start in STARTS:
            run = options.out / f"{start}-{seed}"
            search(run, start, [*arguments, "--seed", seed])
            print(row(run), flush=True)


if __name__ == "__main__":
    main()
