"""How much better a trial is expected to make what is known: one value, the front's hypervolume, or a reward.

All in closed form or by quadrature, for predictions that are normal, or whose logarithm is, and independent of each
other (Emmerich et al., "The computation of the expected improvement in dominated hypervolume of Pareto front
approximations", 2008, for two objectives). A *gain* is a value of which more is better: minus that which is minimised.
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
"""Of the quadrature over the first and the second value."""
COARSE, FINE = 17, 1025
"""Points at which a reward is asked along each value; in between it is interpolated."""
LOG_RANGE = 2.0
"""The finer ones are equally far apart in the value's logarithm where the largest seen is so many times the smallest,
above 0."""
BEYOND = 0.25
"""How far beyond the values seen they reach, in ranges of these."""


@dataclass(frozen=True)
class Forecast:
    """N predictions of one value."""

    mean: Tensor
    """(N,) of the value, or of its logarithm."""
    deviation: Tensor
    """(N,) > 0, the same."""
    is_log: bool
    sign: int
    """1 where the value is maximised, -1 where it is minimised."""

    def excess(self, bounds: Tensor) -> Tensor:
        """(N, M): by how much each gain is expected to be above each of M bounds, 0 where it is not."""
        mean, deviation = self.mean[:, None], self.deviation[:, None]
        if not self.is_log:
            margin = self.sign * mean - bounds
            z = margin / deviation
            density: Tensor = torch.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
            return margin * _below(z) + deviation * density
        expected = torch.exp(mean + deviation**2 / 2)
        z = (mean - (self.sign * bounds).clamp_min(1e-300).log()) / deviation
        if self.sign > 0:  # of a value above the bound
            excess = expected * _below(z + deviation) - bounds * _below(z)
            return torch.where(bounds > 0, excess, expected - bounds)
        excess = -bounds * _below(-z) - expected * _below(-z - deviation)
        return torch.where(bounds < 0, excess, torch.zeros_like(excess))

    def values(self, nodes: Tensor) -> Tensor:
        """(N, M): the values at M standard deviations from the mean."""
        values = self.mean[:, None] + self.deviation[:, None] * nodes
        return values.exp() if self.is_log else values


def _below(z: Tensor) -> Tensor:
    probability: Tensor = torch.special.ndtr(z)
    return probability


def hypervolume_improvement(first: Forecast, second: Forecast, front: Array, reference: Array) -> Tensor:
    """(N,) by how much the area between front and reference is expected to grow.

    Args:
        first, second: the predictions.
        front: (K, 2) gains, in any order, dominated ones and ones beyond the reference allowed.
        reference: (2,) gains.
    """
    steps = _steps(front, reference)
    above = torch.from_numpy(np.concatenate([[reference[0]], steps[:, 0]]))
    ends = torch.from_numpy(np.concatenate([steps[:, 1], [reference[1]]]))
    beyond = second.excess(ends)  # (N, K + 1): E[max(0, gain - end)], from the highest end to the lowest
    widths = torch.diff(beyond, dim=1, prepend=torch.zeros((len(beyond), 1), dtype=beyond.dtype))
    return (widths.clamp_min(0) * first.excess(above).clamp_min(0)).sum(1)


def _steps(front: Array, reference: Array) -> Array:
    """The front's points that none dominates, within the reference, by falling second gain."""
    inside: Array = front[(front > reference).all(axis=1)]
    inside = inside[np.lexsort((-inside[:, 0], -inside[:, 1]))]
    if not len(inside):
        return inside
    best = np.maximum.accumulate(inside[:, 0])
    rising = np.concatenate([[True], best[1:] > best[:-1]])
    return np.asarray(inside[rising], np.float64)


@dataclass(frozen=True)
class RewardTable:
    """A reward of two values, known on a grid of them."""

    low: tuple[float, ...]
    step: tuple[float, ...]
    logarithmic: tuple[bool, ...]
    """Whether the grid is one of the value's logarithm."""
    rewards: Tensor
    """(first, second)."""

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """The reward of each pair, interpolated; of values beyond the grid that at its edge."""
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
    """Ask `reward` for trials that are `like` one but for their values, around those expected, (N, 2).

    `lowest` (2,) are the smallest values told: where one is above 0, so is all that the reward is asked of. `fine` (0
    or 1) is the value in which the reward may have a kink, as at a target latency.
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
    """(N,) by how much the reward is expected to be above `best`."""
    (x, weight_x), (y, weight_y) = _quadrature(NODES[0]), _quadrature(NODES[1])
    rewards = table(first.values(x)[:, :, None], second.values(y)[:, None, :])
    above = (rewards - best).clamp_min(0)
    return ((above * weight_y).sum(2) * weight_x).sum(1)


def _quadrature(count: int) -> tuple[Tensor, Tensor]:
    """For a standard normal, from -4 to 4: places and weights; in equal steps, which no kink misleads."""
    places = torch.linspace(-4, 4, count, dtype=torch.float64)
    weights = torch.exp(-(places**2) / 2)
    return places, weights / weights.sum()


def expected_reward(first: Forecast, second: Forecast, table: RewardTable) -> Tensor:
    """(N,) the mean reward."""
    (x, weight_x), (y, weight_y) = _quadrature(NODES[0]), _quadrature(NODES[1])
    rewards = table(first.values(x)[:, :, None], second.values(y)[:, None, :])
    return ((rewards * weight_y).sum(2) * weight_x).sum(1)
