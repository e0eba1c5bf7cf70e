"""Result of a bench: the searches of every controller, and their scale."""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnas.bench.comparison import ControllerSearches, Hits
from mnas.bench.pool import Interval, Pool, marks
from mnas.bench.settings import BenchSettings
from mnas.evaluate.benchmark import Benchmark
from mnas.version import __version__
from mnas.zoo.architectures import named_arch

LANDMARKS = ("mobilenetv2", "mnasnet-a1")
"""Names of networks in the paper's Figure 2."""


@dataclass(frozen=True, eq=False)
class BenchResult:
    """A finished comparison of controllers."""

    benchmark: Benchmark
    pool: Pool
    """Random members, with the front that hypervolumes are relative to."""
    settings: BenchSettings
    rows: tuple[ControllerSearches, ...]
    """Searches of each controller, one row for each form of the reward that makes a difference to it."""
    hits: tuple[Hits, ...]
    """Distance of every controller's best model from each target quantile; empty if no quantiles were requested."""

    @property
    def target_quantile(self) -> float:
        """Return the quantile of the pool's costs that is the target."""
        return self.settings.target_quantile

    @property
    def trials(self) -> int:
        """Return the number of trials of each search."""
        return self.settings.trials

    @functools.cached_property
    def networks(self) -> dict[str, tuple[float, float]]:
        """Name -> (accuracy, cost) of the benchmark's named networks."""
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
        """Names of Figure 2 that are not in the benchmark's space; empty where its networks are unknown."""
        has_networks = self.benchmark.networks is not None
        return tuple(name for name in LANDMARKS if has_networks and name not in self.networks)

    @property
    def protocol(self) -> str:
        """Return the scale of the numbers, in a line."""
        return protocol(self.benchmark, self.pool, self.target_quantile)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as plain values, for JSON."""
        numbers = marks(self.trials)
        return {
            "version": __version__,
            "settings": self.settings.options,
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
                    "hypervolume": {n: _pair(row.hypervolume(self.pool, n)) for n in numbers},
                    "best_reward": {n: _pair(row.best_reward(n)) for n in numbers},
                    "sampled": list(row.sampled()),
                    "by_seed": {
                        "seeds": list(range(len(row.searches))),
                        "ms_per_trial": [float(s.ms.mean()) for s in row.searches],
                        "hypervolume": {n: row.hypervolumes(self.pool, n) for n in numbers},
                        "best_reward": {n: row.best_rewards(n) for n in numbers},
                    },
                }
                for row in self.rows
            ],
            "hits": [dataclasses.asdict(hits) for hits in self.hits],
            "networks": self.networks,
        }


def protocol(benchmark: Benchmark, pool: Pool, quantile: float) -> str:
    """Return the scale of a bench's numbers, in a line."""
    size, unit, target = len(pool.costs), benchmark.cost_unit, pool.target(quantile)
    accuracy, cost = pool.reference
    return (
        f"pool of {size:,} networks: reference point at accuracy {accuracy:.4f} and cost {cost:.4g} {unit}; "
        f"target {target:.4g} {unit}, the {100 * quantile:g} % quantile of costs"
    )


def _pair(interval: Interval) -> list[float | None]:
    """Return mean and half of the interval; None for a half that is not finite."""
    return [interval.mean, interval.half if math.isfinite(interval.half) else None]
