"""Compare the speed of search, training and decoding in two checkouts of mnas: is the newer one slower?

Each run is a whole command in a separate process with an empty cache folder, so it lists, identifies, decodes and
caches all images. The checkouts alternate, and so does their order within a pair, so other load on the machine affects
both. The table contains the ratio after / before: geometric mean over the pairs and its 95 % confidence interval
(Student's t over the logarithms), in wall-clock time and in CPU time. CPU time is that of the command's process and the
children that it waits for, without the training workers of a search. Nothing else may measure latencies on the machine
meanwhile. Goal: the upper end of the interval is at most 1.05.

    git worktree add ../before COMMIT
    python benchmarks/before_after.py --before ../before --data cifar10     # a folder of CIFAR-10 as JPEGs
"""

import argparse
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import t as student

_DECODE = """
import sys
from mnas.data.load import load_dataset
load_dataset(sys.argv[2], input_size=32, seed=0)
"""
_MNAS = ("-m", "mnas.cli.main")
COMMANDS: Mapping[str, Sequence[str]] = {
    # the latency budget is a fixed number of seconds; a longer one would hide a slower search
    "search": (
        # the preset draws the same two candidates in both checkouts, where only one has `--start-from auto`
        *(*_MNAS, "search", "--preset", "paper", "--input-size", "32", "--width", "0.35", "--trials", "2"),
        *("--epochs", "1"),
        *("--fewest-steps", "1", "--latency-budget-s", "0.1", "--run", "{out}/run"),
    ),
    "train": (*_MNAS, "train", "mnasnet-small@0.35/s8", "--input-size", "32", "--epochs", "1", "--out", "{out}"),
    "decode": ("-c", _DECODE),
}
"""Name -> command; search and train use some images of each class, decode uses all."""


@dataclass(frozen=True)
class Cost:
    wall_s: float
    cpu_s: float
    """CPU time of the command and the children that it waited for."""


def run(checkout: Path, command: Sequence[str], data: Path) -> Cost:
    """Run a command of `checkout` in an empty folder with an empty cache. Raises RuntimeError if it fails."""
    with tempfile.TemporaryDirectory() as out:
        environment = os.environ | {"PYTHONPATH": str(checkout.resolve()), "XDG_CACHE_HOME": f"{out}/cache"}
        arguments = [sys.executable, *(word.replace("{out}", out) for word in command)]
        started = time.perf_counter()
        with (Path(out) / "printed").open("w+") as printed:
            process = subprocess.Popen(
                [*arguments, "--data", str(data.resolve())], cwd=out, env=environment, stdout=printed, stderr=printed
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            wall_s = time.perf_counter() - started
            if process.returncode:
                printed.seek(0)
                raise RuntimeError(
                    f"{' '.join(arguments)} in {checkout} ended with {process.returncode}: {printed.read()}"
                )
        return Cost(wall_s, usage.ru_utime + usage.ru_stime)


def some_of(data: Path, count: int, folder: Path) -> Path:
    """Copy `count` images of each class in train/ and a tenth of it in test/ to `folder`."""
    for part, most in (("train", count), ("test", max(1, count // 10))):
        for group in sorted((data / part).iterdir()):
            (folder / part / group.name).mkdir(parents=True)
            for image in sorted(group.iterdir())[:most]:
                shutil.copy(image, folder / part / group.name)
    return folder


def interval(ratios: Sequence[float]) -> str:
    """Return the geometric mean and its 95 % confidence interval."""
    logs = [math.log(ratio) for ratio in ratios]
    middle = statistics.fmean(logs)
    half = student.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return f"{math.exp(middle):.3f} ({math.exp(middle - half):.3f}-{math.exp(middle + half):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="checkout of the older version")
    parser.add_argument("--after", type=Path, default=Path(__file__).parents[1], help="checkout of the newer version")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10 as JPEGs, train/ and test/")
    parser.add_argument("--pairs", type=int, default=10, help="runs of each version and command")
    parser.add_argument("--images-per-class", type=int, default=100, help="training images for search and train")
    parser.add_argument("--commands", default=",".join(COMMANDS), help="which of %(default)s")
    options = parser.parse_args()
    if options.before is None or options.data is None:
        print("skipped: --before CHECKOUT and --data FOLDER are required")
        return
    if options.pairs < 2:
        parser.error(f"--pairs must be 2 or more, but got {options.pairs}")
    with tempfile.TemporaryDirectory() as folder:
        some = some_of(options.data, options.images_per_class, Path(folder) / "some")
        for name in options.commands.split(","):
            compare(name, options.before, options.after, options.data if name == "decode" else some, options.pairs)


def compare(name: str, before: Path, after: Path, data: Path, count: int) -> None:
    """Run `count` pairs of one command, and print each and then the ratios."""
    pairs: list[tuple[Cost, Cost]] = []
    for number in range(count):
        order = [before, after] if number % 2 == 0 else [after, before]
        costs = {checkout: run(checkout, COMMANDS[name], data) for checkout in order}
        pairs.append((costs[before], costs[after]))
        print(
            f"{name} {number + 1}: wall {pairs[-1][0].wall_s:.1f} s before, {pairs[-1][1].wall_s:.1f} s after; "
            f"CPU {pairs[-1][0].cpu_s:.1f} s, {pairs[-1][1].cpu_s:.1f} s",
            flush=True,
        )
    wall = interval([b.wall_s / a.wall_s for a, b in pairs])
    cpu = interval([b.cpu_s / a.cpu_s for a, b in pairs])
    print(f"{name:<8} {count} pairs  after / before: wall {wall}, CPU {cpu}", flush=True)


if __name__ == "__main__":
    main()
