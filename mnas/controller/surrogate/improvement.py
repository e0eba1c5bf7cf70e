"""Expected improvement by a trial: of one value, of the front's hypervolume, or of a reward.

All are in closed form or by quadrature, for predictions that are normal, or whose logarithm is, and independent of each
other (Emmerich et al., "The computation of the expected improvement in dominated hypervolume of Pareto front
approximations", 2008, for two objectives). A *gain* is a value that is maximised, or minus one that is minimised.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from optuna.trial import FrozenTrial
from torch import Tensor

Array = npt.NDArray[np.float64]

NODES = (13, 33)
"""Number of nodes of the quadrature over the first and the second value."""
COARSE, FINE = 17, 1025
"""Number of points at which a reward is evaluated along each value; between them it is interpolated."""
LOG_RANGE = 2.0
"""Ratio of the largest to the smallest positive value seen from which the fine points are even in the logarithm."""
BEYOND = 0.25
"""How far the points reach beyond the values seen, as a share of their range."""


@dataclass(frozen=True)
class Forecast:
    """N predictions of one value."""

    mean: Tensor
    """Mean of the value, or of its logarithm; (N,)."""
    deviation: Tensor
    """Standard deviation of the same, > 0; (N,)."""
    is_log: bool
    sign: int
    """1 where the value is maximised, -1 where it is minimised."""

    def excess(self, bounds: Tensor) -> Tensor:
        """Return (N, M) the expected excess of each gain over each of M bounds, where no excess counts as 0."""
        mean, deviation = self.mean[:, None], self.deviation[:, None]
        if not self.is_log:
            margin = self.sign * mean - bounds
            z = margin / deviation
            density: Tensor = torch.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
            return margin * _below(z) + deviation * density
        expected = torch.exp(mean + deviation**2 / 2)
        z = (mean - (self.sign * bounds).clamp_min(1e-300).log()) / deviation
        if self.sign > 0:  # the value above the bound counts
            excess = expected * _below(z + deviation) - bounds * _below(z)
            return torch.where(bounds > 0, excess, expected - bounds)
        excess = -bounds * _below(-z) - expected * _below(-z - deviation)
        return torch.where(bounds < 0, excess, torch.zeros_like(excess))

    def values(self, nodes: Tensor) -> Tensor:
        """Return (N, M) the values at M standard deviations from the mean."""
        values = self.mean[:, None] + self.deviation[:, None] * nodes
        return values.exp() if self.is_log else values


def _below(z: Tensor) -> Tensor:
    probability: Tensor = torch.special.ndtr(z)
    return probability


def hypervolume_improvement(first: Forecast, second: Forecast, front: Array, reference: Array) -> Tensor:
    """Return (N,) the expected growth of the area between front and reference.

    Args:
        first, second: predictions of the two values.
        front: (K, 2) gains in any order, which may be dominated or beyond the reference.
        reference: (2,) gains.
    """
    steps = _steps(front, reference)
    above = torch.from_numpy(np.concatenate([[reference[0]], steps[:, 0]]))
    ends = torch.from_numpy(np.concatenate([steps[:, 1], [reference[1]]]))
    beyond = second.excess(ends)  # (N, K + 1): E[max(0, gain - end)], from the highest end to the lowest
    widths = torch.diff(beyond, dim=1, prepend=torch.zeros((len(beyond), 1), dtype=beyond.dtype))
    return (widths.clamp_min(0) * first.excess(above).clamp_min(0)).sum(1)


def _steps(front: Array, reference: Array) -> Array:
    """Return the front's non-dominated points within the reference, by falling second gain."""
    inside: Array = front[(front > reference).all(axis=1)]
    inside = inside[np.lexsort((-inside[:, 0], -inside[:, 1]))]
    if not len(inside):
        return inside
    best = np.maximum.accumulate(inside[:, 0])
    rising = np.concatenate([[True], best[1:] > best[:-1]])
    return np.asarray(inside[rising], np.float64)


@dataclass(frozen=True)
class RewardTable:
    """A reward of two values, tabulated on a grid of them."""

    low: tuple[float, ...]
    step: tuple[float, ...]
    logarithmic: tuple[bool, ...]
    """Whether the grid is even in the value's logarithm, for each value."""
    rewards: Tensor
    """Rewards on the grid, (first, second)."""

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the interpolated reward of each pair; beyond the grid, the reward at its edge."""
        (i, u), (j, v) = self._place(0, first), self._place(1, second)
        near = self.rewards[i, j] * (1 - v) + self.rewards[i, j + 1] * v
        far = self.rewards[i + 1, j] * (1 - v) + self.rewards[i + 1, j + 1] * v
        return near * (1 - u) + far * u

    def _place(self, axis: int, values: Tensor) -> tuple[Tensor, Tensor]:
        values = values.clamp_min(1e-300).log() if self.logarithmic[axis] else values
        last = self.rewards.shape[axis] - 1
        place = ((values - self.low[axis]) / self.step[axis]).clamp(0, last)
        cell = place.floor().clamp_max(last - 1)
        return cell.long(), place - cell


def tabulate(
    reward: Callable[[FrozenTrial], float], like: FrozenTrial, values: Array, lowest: Array, fine: int
) -> RewardTable:
    """Tabulate `reward` for trials that equal `like` except for their values, around those expected, (N, 2).

    `lowest` (2,) are the smallest values seen: where one is above 0, the grid stays above 0 too. `fine` (0 or 1) is the
    value in which the reward may have a kink, such as at a target latency.
    """
    axes, lows, steps, logarithmic = [], [], [], []
    for axis in range(2):
        seen = values[:, axis]
        is_log = bool(axis == fine and seen.min() > 0 and seen.max() > LOG_RANGE * seen.min())
        seen = np.log(seen) if is_log else seen
        room = BEYOND * (seen.max() - seen.min()) + 1e-3 * max(1e-9, float(np.abs(seen).max()))
        grid = np.linspace(seen.min() - room, seen.max() + room, FINE if axis == fine else COARSE)
        lows.append(float(grid[0]))
        steps.append(float(grid[1] - grid[0]))
        logarithmic.append(is_log)
        asked_of = np.exp(grid) if is_log else grid
        axes.append(np.where(asked_of > 0, asked_of, lowest[axis]) if lowest[axis] > 0 else asked_of)
    rewards = np.empty((len(axes[0]), len(axes[1])))
    asked = copy.copy(like)
    for i, first in enumerate(axes[0].tolist()):
        for j, second in enumerate(axes[1].tolist()):
            asked.values = [first, second]
            rewards[i, j] = reward(asked)
    return RewardTable(tuple(lows), tuple(steps), tuple(logarithmic), torch.from_numpy(rewards))


def reward_improvement(first: Forecast, second: Forecast, table: RewardTable, best: float) -> Tensor:
    """Return (N,) the expected excess of the reward over `best`."""
    (x, weight_x), (y, weight_y) = _quadrature(NODES[0]), _quadrature(NODES[1])
    rewards = table(first.values(x)[:, :, None], second.values(y)[:, None, :])
    above = (rewards - best).clamp_min(0)
    return ((above * weight_y).sum(2) * weight_x).sum(1)


def _quadrature(count: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights for a standard normal, from -4 to 4, in equal steps, which no kink misleads."""
    places = torch.linspace(-4, 4, count, dtype=torch.float64)
    weights = torch.exp(-(places**2) / 2)
    return places, weights / weights.sum()


def expected_reward(first: Forecast, second: Forecast, table: RewardTable) -> Tensor:
    """Return (N,) the mean reward."""
    (x, weight_x), (y, weight_y) = _quadrature(NODES[0]), _quadrature(NODES[1])
    rewards = table(first.values(x)[:, :, None], second.values(y)[:, None, :])
    return ((rewards * weight_y).sum(2) * weight_x).sum(1)
