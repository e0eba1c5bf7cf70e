"""What the searches of one contender come to, over its seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnas.bench.pool import Interval, Pool, interval, rewards
from mnas.bench.searched import Searched
from mnas.evaluate.benchmark import Values
from mnas.objective import Objective, pareto_front

HIT = 0.05
"""A model is at the target if its cost is within this share of it."""
_POINTS = 40


@dataclass(frozen=True, eq=False)
class Row:
    """The searches of one controller, a seed each, and what they are judged by."""

    name: str
    objective: Objective
    searches: tuple[Searched, ...]

    def hypervolume(self, pool: Pool, mark: int) -> Interval:
        """Ratio to the pool's, after `mark` trials."""
        return interval([pool.ratio(s.accuracies[:mark], s.costs[:mark]) for s in self.searches])

    def best_reward(self, mark: int) -> Interval:
        """The highest, after `mark` trials."""
        return interval([float(self._rewards(s)[:mark].max()) for s in self.searches])

    @property
    def ms_per_trial(self) -> Interval:
        """CPU milliseconds, all trials."""
        return interval([float(s.ms.mean()) for s in self.searches])

    def distances(self, target: float) -> Values:
        """|cost / target - 1| of the model with the highest reward; (seeds,)."""
        best = [s.costs[int(self._rewards(s).argmax())] for s in self.searches]
        return np.abs(np.array(best) / target - 1)

    def median_search(self, pool: Pool) -> Searched:
        """The one with the median hypervolume in the end (the lower one of two)."""
        ordered = sorted(self.searches, key=lambda s: pool.ratio(s.accuracies, s.costs))
        return ordered[(len(ordered) - 1) // 2]

    def _rewards(self, searched: Searched) -> Values:
        return rewards(self.objective, searched.accuracies, searched.costs)


@dataclass(frozen=True)
class Hits:
    """How near to its target a controller's best-reward model is, over seeds."""

    name: str
    quantile: float
    """Of the pool's costs, which the target was."""
    target: float
    share: float
    """Of the seeds, those within 5 %."""
    median: float
    """Of the distances."""
    worst: float


def hits(row: Row, quantile: float, target: float) -> Hits:
    """Of one row, all of whose searches had this target."""
    distances = row.distances(target)
    return Hits(
        row.name,
        quantile,
        target,
        float((distances <= HIT).mean()),
        float(np.median(distances)),
        float(distances.max()),
    )


def front_of(searched: Searched) -> list[tuple[float, float]]:
    """(accuracy, cost) of its front, the cheapest first."""
    points = list(zip(searched.accuracies.tolist(), searched.costs.tolist(), strict=True))
    return [points[i] for i in pareto_front(points)]


def curve_points(trials: int) -> list[int]:
    """Numbers of trials at which curves are drawn, evenly on a logarithmic scale from 10."""
    first = min(10, trials)
    exponents = np.linspace(math.log(first), math.log(trials), _POINTS)
    return sorted({round(math.exp(e)) for e in exponents})


def shares(values: Sequence[float], edges: Sequence[float]) -> list[float]:
    """Which share of the values lies between neighbouring edges; what lies outside counts in the outermost."""
    clipped = np.clip(np.asarray(values), edges[0], edges[-1])
    counts, _ = np.histogram(clipped, bins=np.asarray(edges))
    found: list[float] = (counts / max(1, len(clipped))).tolist()
    return found
