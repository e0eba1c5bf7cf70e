"""Goal of the next trial of a batch: hypervolume or a reward, under models of the objectives."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from optuna.trial import FrozenTrial

from mnas.controller.sampler import Reward
from mnas.controller.surrogate.coding import Coded, Coding
from mnas.controller.surrogate.gaussian import Array, Process
from mnas.controller.surrogate.improvement import (
    Forecast,
    expected_reward,
    hypervolume_improvement,
    reward_improvement,
    tabulate,
)
from mnas.controller.surrogate.proposing import Indices

Row = tuple[int, ...]

REFERENCE_QUANTILE = 0.05
"""Share of random members that is worse than the reference point, in each objective."""

BEST = 64
"""Number of the best members seen that a search starts from."""


@dataclass(frozen=True)
class Aims:
    """Goals besides the hypervolume."""

    rewards: tuple[Reward, ...]
    share: float
    """Share of the trials for the rewards, in turn."""


@dataclass(frozen=True)
class Data:
    """Trials of closed batches."""

    indices: Indices
    """Indices of the trials, (N, D)."""
    values: Array
    """Values of the trials, (N, M); NaN where unknown."""
    pruned: npt.NDArray[np.bool_]
    trials: list[FrozenTrial]
    drawn: frozenset[Row]
    """All members drawn, including failed ones."""

    @property
    def completed(self) -> Array:
        """Return (N,) 1, or 0 for pruned trials."""
        return np.where(self.pruned, 0.0, 1.0)

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """Return (N,) whether each trial is completed, with all its values."""
        complete: npt.NDArray[np.bool_] = np.isfinite(self.values).all(axis=1) & ~self.pruned
        return complete


@dataclass(frozen=True)
class GoalModel:
    """Model of one objective, or of whether a trial is completed (1) or pruned (0)."""

    process: Process
    is_log: bool
    sign: int
    beside: "GoalModel | None" = None
    """Model of another objective, whose prediction is an extra input feature."""

    def forecast(self, coded: Coded) -> Forecast:
        mean, deviation = self.process.predict(with_beside(coded, self.beside))
        return Forecast(mean, deviation, self.is_log, self.sign)

    def believing(self, coded: Coded) -> "GoalModel":
        return replace(self, process=self.process.believing(with_beside(coded, self.beside)))


def with_beside(coded: Coded, beside: GoalModel | None) -> Coded:
    """Return members with the predictions of `beside` as an extra feature."""
    return coded if beside is None else replace(coded, beside=beside.process.expect(coded)[:, None])


@dataclass(frozen=True)
class Models:
    objectives: list[GoalModel]
    """Models of the objectives; empty where data are too few."""
    completed: GoalModel | None
    """Model of 1 for completed and 0 for pruned trials; None where none is pruned."""


class Goals:
    """Goal of the next pick of a batch, given the picks before it."""

    def __init__(
        self, coding: Coding, signs: Sequence[int], aims: Aims, models: Models, data: Data, pool: Indices
    ) -> None:
        self._coding, self._signs, self._aims = coding, signs, aims
        self._models, self._completed, self._data = models.objectives, models.completed, data
        self._seen = seen = self._expected(data.indices[data.complete])
        self._gains = seen * np.array(self._signs)
        self._pool = pool
        self.last = pool[:0]
        if len(self._signs) == 2:
            self._reference = self._place_reference()
            like = next(t for t, done in zip(data.trials, data.complete, strict=True) if done)
            fine = 0 if self._signs == (-1, 1) else 1
            lowest = data.values[data.complete].min(axis=0)
            self._tables = [tabulate(reward, like, seen, lowest, fine) for reward in aims.rewards]
            values = torch.from_numpy(seen)
            self._best = [float(t(values[:, 0], values[:, 1]).max()) for t in self._tables]
        self._goal = -1

    def _expected(self, members: Indices) -> Array:
        """Return (N, M) predicted values of members, also of those seen: without the noise that made some look better.

        Values that are only lucky would otherwise define the front, and no prediction would reach it.
        """
        coded, zero = self._coding(members), torch.zeros(1, dtype=torch.float64)
        columns = [model.forecast(coded).values(zero)[:, 0].numpy() for model in self._models]
        expected: Array = np.stack(columns, axis=1)
        return expected

    def _place_reference(self) -> Array:
        """Return a point that few random members are worse than, and no better than the median of those seen."""
        gains = self._expected(self._pool) * np.array(self._signs)
        worst: Array = np.quantile(gains, REFERENCE_QUANTILE, axis=0)
        return np.asarray(np.minimum(worst, np.quantile(self._gains, 0.5, axis=0)))

    def aim(self, number: int) -> None:
        """Aim at the hypervolume (-1), or a reward."""
        before, after = math.floor(number * self._aims.share), math.floor((number + 1) * self._aims.share)
        self._goal = before % len(self._aims.rewards) if after > before and len(self._signs) == 2 else -1

    def score(self, members: Indices) -> npt.NDArray[np.float64]:
        coded = self._coding(members)
        forecasts = [model.forecast(coded) for model in self._models]
        if len(self._signs) == 1:
            best = torch.tensor([float(self._gains.max())], dtype=torch.float64)
            score = forecasts[0].excess(best)[:, 0]
        elif self._goal < 0:
            score = hypervolume_improvement(forecasts[0], forecasts[1], self._gains, self._reference)
        else:
            table = self._tables[self._goal]
            score = reward_improvement(forecasts[0], forecasts[1], table, self._best[self._goal])
            score = score + 1e-6 * (expected_reward(forecasts[0], forecasts[1], table) - self._best[self._goal])
        if self._completed is not None:
            done = self._completed.forecast(coded)
            chance = torch.special.ndtr((done.mean - 0.5) / done.deviation)
            score = torch.where(score > 0, score * chance.clamp_min(1e-3), score)
        return score.numpy()

    def seeds(self) -> Indices:
        """Return members to start a search from: the last pick's final ones, and the best of those seen."""
        good = self._data.indices[self._data.complete]
        if len(self._signs) == 2 and self._goal >= 0:
            values = torch.from_numpy(self._seen)
            worth = self._tables[self._goal](values[:, 0], values[:, 1]).numpy()
            order = np.argsort(-worth, kind="stable")
        elif len(self._signs) == 2:
            order = np.argsort(_dominated_by(self._gains[: len(good)]), kind="stable")
        else:
            order = np.argsort(-self._gains[: len(good), 0], kind="stable")
        return np.concatenate([self.last, good[order[:BEST]]])

    def believe(self, row: Indices) -> None:
        """Count `row` as seen, with its predicted values."""
        coded, values = self._coding(row), self._expected(row)[0].tolist()
        gains = np.array([v * s for v, s in zip(values, self._signs, strict=True)])
        self._gains = np.concatenate([self._gains, gains[None]])
        self._models = [model.believing(coded) for model in self._models]
        if self._completed is not None:
            self._completed = self._completed.believing(coded)
        if len(self._signs) == 2:
            predicted = torch.tensor(values, dtype=torch.float64)
            for goal, table in enumerate(self._tables):
                self._best[goal] = max(self._best[goal], float(table(predicted[:1], predicted[1:2])[0]))


def _dominated_by(gains: Array) -> npt.NDArray[np.int64]:
    """Return (N,) how many others are better in both, or equal in one and better in the other."""
    first, second = gains[:, :1], gains[:, 1:]
    at_least = (first <= first.T) & (second <= second.T)
    equal = (first == first.T) & (second == second.T)
    counts: npt.NDArray[np.int64] = (at_least & ~equal).sum(axis=1)
    return counts
