"""What `mnas bench` shows: tables, a page, pictures, and the numbers for other programs."""

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from mnas.atomic import write_atomic
from mnas.bench.comparison import Hits, Row
from mnas.bench.figures import figures
from mnas.bench.pool import Interval, Pool, marks
from mnas.bench.svg import svg
from mnas.evaluate.benchmark import Benchmark
from mnas.report.page import page
from mnas.report.sections import chart, escape, section
from mnas.zoo.architectures import named_arch

LANDMARKS = ("mobilenetv2", "mnasnet-a1")
"""Networks of the paper's Figure 2."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """All that a bench has found."""

    benchmark: Benchmark
    pool: Pool
    target_quantile: float
    trials: int
    rows: tuple[Row, ...]
    reached: tuple[Hits, ...]

    @functools.cached_property
    def networks(self) -> dict[str, tuple[float, float]]:
        """Name -> (accuracy, cost) of networks with a name that the benchmark has."""
        space, indices = self.benchmark.networks, dict(self.benchmark.members)
        for name in LANDMARKS:
            if space is not None and space.contains(named_arch(name)):
                indices[name] = space.encode(named_arch(name))
        if not indices:
            return {}
        accuracies, costs = self.benchmark.score(np.array(list(indices.values())))
        return dict(zip(indices, zip(accuracies.tolist(), costs.tolist(), strict=True), strict=True))

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of Figure 2 that the benchmark's space has not; none where it is not known what its networks are."""
        known = self.benchmark.networks is not None
        return tuple(name for name in LANDMARKS if known and name not in self.networks)

    def write(self, folder: Path) -> list[str]:
        """Write page, pictures and numbers into `folder`, and return their names."""
        name = self.benchmark.name
        charts = figures(self.benchmark, self.pool, self.rows, self.networks)
        files = {
            f"{name}.html": page(f"bench on {name}", self._body(), charts),
            f"{name}.svg": svg([charts["hypervolume"], charts["front"]]),
            f"{name}-rewards.svg": svg([charts["reward"], charts["histogram"]]),
            f"{name}.json": json.dumps(self._numbers(), indent=1),
        }
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            write_atomic(folder / file, content)
        return list(files)

    def _numbers(self) -> dict[str, Any]:
        looks = marks(self.trials)
        return {
            "benchmark": self.benchmark.name,
            "cost_unit": self.benchmark.cost_unit,
            "notes": list(self.benchmark.notes),
            "trials": self.trials,
            "target": self.pool.target(self.target_quantile),
            "reference": list(self.pool.reference),
            "rows": [
                {
                    "name": row.name,
                    "seeds": len(row.searches),
                    "ms_per_trial": row.ms_per_trial.mean,
                    "hypervolume": {n: _pair(row.hypervolume(self.pool, n)) for n in looks},
                    "best_reward": {n: _pair(row.best_reward(n)) for n in looks},
                    "sampled": list(row.sampled()),
                }
                for row in self.rows
            ],
            "hits": [dataclasses.asdict(h) for h in self.reached],
            "networks": self.networks,
        }

    def _body(self) -> list[str]:
        lines = (*self.benchmark.notes, protocol(self.benchmark, self.pool, self.target_quantile))
        notes = "".join(f"<p class='quiet'>{escape(line)}</p>" for line in lines)
        mean = "Mean over seeds; bars are 95 % intervals."
        fronts = f"Fronts after {self.trials:,} trials, of each controller's seed with the median hypervolume."
        figure6 = "All trials of all seeds; compare the paper's Figure 6."
        return [
            f"<header><h1>bench on {escape(self.benchmark.name)}</h1></header>{notes}",
            section("Hypervolume", chart("hypervolume", f"{mean} 1 is the random pool's front.")),
            section("Accuracy against cost", chart("front", fronts, tall=True)),
            section("Best reward", chart("reward", mean)),
            section("Cost of what was sampled", chart("histogram", figure6)),
        ]


def _pair(found: Interval) -> list[float | None]:
    """Mean and half of the interval, null where there is none."""
    return [found.mean, found.half if math.isfinite(found.half) else None]


def protocol(benchmark: Benchmark, pool: Pool, quantile: float) -> str:
    """What the numbers are relative to, in a line."""
    size, unit, target = len(pool.costs), benchmark.cost_unit, pool.target(quantile)
    accuracy, cost = pool.reference
    return (
        f"pool of {size:,} members: reference point accuracy {accuracy:.4f}, {cost:.4g} {unit}; "
        f"target {target:.4g} {unit}, which {100 * quantile:g} % stay below"
    )


def _table(title: str, first: str, rest: Sequence[str]) -> Table:
    table = Table(first, title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in rest:
        table.add_column(name, justify="right")
    return table


def progress_table(rows: Sequence[Row], pool: Pool, looks: Sequence[int]) -> Table:
    """Hypervolumes, and milliseconds per trial."""
    table = _table("hypervolume, ratio to the pool's, after trials", "controller", [*map(str, looks), "CPU ms a trial"])
    for row in rows:
        table.add_row(row.name, *(str(row.hypervolume(pool, n)) for n in looks), f"{row.ms_per_trial.mean:.1f}")
    return table


def reward_table(rows: Sequence[Row], looks: Sequence[int]) -> Table:
    """Best rewards."""
    table = _table("best reward after trials", "controller", [str(n) for n in looks])
    for row in rows:
        table.add_row(row.name, *(str(row.best_reward(n)) for n in looks))
    return table


def sampled_table(rows: Sequence[Row]) -> Table:
    """The paper's Figure 6 in numbers."""
    names = ["below T by over 5 %", "within 5 %", "above"]
    table = _table("share of all trials", "controller", names)
    for row in rows:
        table.add_row(row.name, *(f"{share:.0%}" for share in row.sampled()))
    return table


def hit_table(reached: Sequence[Hits]) -> Table:
    """Hit rates."""
    table = _table(
        "how far from the target the best-reward model lies",
        "controller",
        ["target's quantile", "T", "within 5 %", "median", "worst", "on the front: within 5 %", "worst"],
    )
    for h in reached:
        all_trials = (f"{h.share:.0%}", f"{h.median:+.1%}", f"{h.worst:+.1%}")
        on_front = (f"{h.share_on_front:.0%}", f"{h.worst_on_front:+.1%}")
        table.add_row(h.name, f"{h.quantile:g}", f"{h.target:.4g}", *all_trials, *on_front)
    return table
