"""Random members of a benchmark, the scale of searches on it."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mnas.evaluate.benchmark import Benchmark, Indices, Values
from mnas.objective import Objective, hypervolume, pareto_front

POOL = 60_000
ACCURACY_QUANTILE, COST_QUANTILE = 0.1, 0.95
"""Quantiles of the pool for the reference point; a member that is worse adds nothing to a hypervolume."""
MARKS = (50, 100, 200, 500, 1000, 2000)
"""Numbers of trials after which searches are compared."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Scores of random members. Raises ValueError where none is better than the reference point."""

    accuracies: Values
    costs: Values

    def __post_init__(self) -> None:
        if not self.volume > 0:
            accuracies, costs = ((float(x.min()), float(x.max())) for x in (self.accuracies, self.costs))
            raise ValueError(
                "a benchmark must have networks above its 10 % quantile of accuracy and below its 95 % quantile of "
                f"cost, but none of its {len(self.costs):,} networks is both; accuracies range from "
                f"{accuracies[0]:.4g} to {accuracies[1]:.4g} and costs from {costs[0]:.4g} to {costs[1]:.4g}"
            )

    @functools.cached_property
    def reference(self) -> tuple[float, float]:
        """Return the (accuracy, cost) that hypervolumes are measured from."""
        return (
            float(np.quantile(self.accuracies, ACCURACY_QUANTILE)),
            float(np.quantile(self.costs, COST_QUANTILE)),
        )

    @functools.cached_property
    def volume(self) -> float:
        """Hypervolume of the pool's own front."""
        return hypervolume(list(zip(self.accuracies.tolist(), self.costs.tolist(), strict=True)), self.reference)

    @functools.cached_property
    def front(self) -> list[tuple[float, float]]:
        """Return (accuracy, cost) of the pool's front, the cheapest first."""
        points = list(zip(self.accuracies.tolist(), self.costs.tolist(), strict=True))
        return [points[i] for i in pareto_front(points)]

    def target(self, quantile: float) -> float:
        """Return the cost that a share `quantile` of the pool stays below."""
        return float(np.quantile(self.costs, quantile))

    def ratio(self, accuracies: ArrayLike, costs: ArrayLike) -> float:
        """Return the hypervolume of members with these (N,) scores, relative to that of the pool's front."""
        points = zip(np.asarray(accuracies).tolist(), np.asarray(costs).tolist(), strict=True)
        return hypervolume(list(points), self.reference) / self.volume


def draw_pool(benchmark: Benchmark) -> Pool:
    """Return 60,000 random members, the same every time; all members of a smaller benchmark."""
    return Pool(*benchmark.score(pool_indices(benchmark)))


def pool_indices(benchmark: Benchmark) -> Indices:
    """Return the indices of the pool's members, (N, D)."""
    counts = [len(d.choices) for d in benchmark.space.values()]
    if (size := math.prod(counts)) <= POOL:
        return np.stack(np.unravel_index(np.arange(size), counts), axis=1).astype(np.int64)
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(count, size=POOL) for count in counts], axis=1)


def rewards(objective: Objective, accuracies: ArrayLike, costs: ArrayLike) -> Values:
    """Return the rewards, (N,)."""
    pairs = zip(np.asarray(accuracies).tolist(), np.asarray(costs).tolist(), strict=True)
    return np.array([objective.reward(accuracy, cost) for accuracy, cost in pairs])


def marks(trials: int) -> tuple[int, ...]:
    """Return the numbers of trials to compare searches at: the usual ones up to `trials`, and `trials`."""
    return (*(mark for mark in MARKS if mark < trials), trials)


@dataclass(frozen=True)
class Interval:
    """Mean over seeds with half of its 95 % interval (Student's t); NaN for a single seed."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if math.isnan(self.half) else f" ±{self.half:.3f}")


def interval(values: Sequence[float]) -> Interval:
    """Return the interval of the values of several seeds."""
    from scipy.stats import t

    if len(values) < 2:
        return Interval(float(np.mean(values)), math.nan)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(float(np.mean(values)), float(t.ppf(0.975, len(values) - 1)) * error)
