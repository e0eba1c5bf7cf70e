"""Comparison of the searches of one contender, over its seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnas.bench.pool import Interval, Pool, interval, rewards
from mnas.bench.searched import Searched
from mnas.evaluate.benchmark import Values
from mnas.objective import AT_TARGET, Objective, pareto_front

_POINTS = 40


@dataclass(frozen=True, eq=False)
class ControllerSearches:
    """Searches of one controller, one for each seed, with the objective that scores them."""

    name: str
    objective: Objective
    searches: tuple[Searched, ...]

    def hypervolume(self, pool: Pool, mark: int) -> Interval:
        """Return the hypervolume relative to the pool's, after `mark` trials."""
        return interval(self.hypervolumes(pool, mark))

    def hypervolumes(self, pool: Pool, mark: int) -> list[float]:
        """Return the same of each search, in order of the seeds."""
        return [pool.ratio(s.accuracies[:mark], s.costs[:mark]) for s in self.searches]

    def best_reward(self, mark: int) -> Interval:
        """Return the highest reward after `mark` trials."""
        return interval(self.best_rewards(mark))

    def best_rewards(self, mark: int) -> list[float]:
        """Return the same of each search, in order of the seeds."""
        return [float(self._rewards(s)[:mark].max()) for s in self.searches]

    @property
    def ms_per_trial(self) -> Interval:
        """Return the CPU milliseconds of a trial, over all trials."""
        return interval([float(s.ms.mean()) for s in self.searches])

    def distances(self, target: float) -> Values:
        """Return cost / target - 1 of the model with the highest reward; (seeds,)."""
        best = [s.costs[int(self._rewards(s).argmax())] for s in self.searches]
        return np.array(best) / target - 1

    def distances_on_front(self, target: float) -> Values:
        """Return the same for the model with the highest reward on the front, as a search recommends it."""
        best = [max(front_of(s), key=lambda point: self.objective.reward(*point))[1] for s in self.searches]
        return np.array(best) / target - 1

    def sampled(self) -> tuple[float, float, float]:
        """Return the shares of trials that cost over 5 % less than the target, within 5 % of it, and more."""
        relative = np.concatenate([s.costs for s in self.searches]) / self.objective.target_latency_ms - 1
        return (
            float((relative < -AT_TARGET).mean()),
            float((np.abs(relative) <= AT_TARGET).mean()),
            float((relative > AT_TARGET).mean()),
        )

    def median_search(self, pool: Pool) -> Searched:
        """Return the search with the median hypervolume in the end (the lower one of two)."""
        ordered = sorted(self.searches, key=lambda s: pool.ratio(s.accuracies, s.costs))
        return ordered[(len(ordered) - 1) // 2]

    def _rewards(self, searched: Searched) -> Values:
        return rewards(self.objective, searched.accuracies, searched.costs)


@dataclass(frozen=True)
class Hits:
    """Distance of a controller's best-reward model from its target, over seeds."""

    name: str
    quantile: float
    """Quantile of the pool's costs that was the target."""
    target: float
    share: float
    """Share of the seeds within 5 %."""
    median: float
    """Median of the distances, negative below the target."""
    worst: float
    """Distance that is farthest from the target."""
    share_on_front: float
    """`share` and, next, `worst` for the best reward on the front."""
    worst_on_front: float


def hits(row: ControllerSearches, quantile: float, target: float) -> Hits:
    """Return the hits of one row, all of whose searches had this target."""
    distances, on_front = row.distances(target), row.distances_on_front(target)
    median = float(np.median(distances))
    figures = (_share(distances), median, _worst(distances), _share(on_front), _worst(on_front))
    return Hits(row.name, quantile, target, *figures)


def _share(distances: Values) -> float:
    return float((np.abs(distances) <= AT_TARGET).mean())


def _worst(distances: Values) -> float:
    return float(distances[np.abs(distances).argmax()])


def front_of(searched: Searched) -> list[tuple[float, float]]:
    """Return (accuracy, cost) of the search's front, the cheapest first."""
    points = list(zip(searched.accuracies.tolist(), searched.costs.tolist(), strict=True))
    return [points[i] for i in pareto_front(points)]


def curve_points(trials: int) -> list[int]:
    """Return the numbers of trials at which curves are drawn, evenly on a logarithmic scale from 10."""
    first = min(10, trials)
    exponents = np.linspace(math.log(first), math.log(trials), _POINTS)
    return sorted({round(math.exp(e)) for e in exponents})


def shares(values: Sequence[float], edges: Sequence[float]) -> list[float]:
    """Return the share of the values between neighbouring edges; the outermost shares include values beyond."""
    clipped = np.clip(np.asarray(values), edges[0], edges[-1])
    counts, _ = np.histogram(clipped, bins=np.asarray(edges))
    shares: list[float] = (counts / max(1, len(clipped))).tolist()
    return shares
