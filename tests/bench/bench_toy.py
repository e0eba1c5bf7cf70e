"""A small, complete benchmark with a trade-off, so that every number can be computed by hand or by brute force."""

import itertools
from pathlib import Path

from mnas.evaluate.benchmark import Benchmark
from mnas.evaluate.table import read_table

CHOICES = {"op": ("conv", "mbconv"), "kernel": (3, 5, 7), "depth": (1, 2, 3, 4), "width": (8, 16, 24), "free": (0,)}


def rows() -> list[tuple]:
    """Choices, accuracy, cost of all 72 members."""
    found = []
    for op, kernel, depth, width, free in itertools.product(*CHOICES.values()):
        accuracy = 0.4 + 0.05 * (op == "mbconv") + 0.02 * kernel + 0.06 * depth - 0.008 * depth**2 + 0.004 * width
        cost = (1 + 0.5 * (op == "conv")) * kernel * depth * width / 10
        found.append((op, kernel, depth, width, free, round(accuracy, 6), round(cost, 6)))
    return found


def write_table(path: Path) -> Path:
    lines = [",".join([*CHOICES, "accuracy", "cost"]), *(",".join(map(str, row)) for row in rows())]
    path.write_text("\n".join(lines) + "\n")
    return path


def toy_benchmark(folder: Path) -> Benchmark:
    return read_table(write_table(folder / "toy.csv"))
