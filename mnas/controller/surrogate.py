"""Search by models of what trials will give: the controller for dozens to hundreds of trials.

A Gaussian process for each objective (`gaussian.py`) is fitted to the closed batches. A batch is then picked one by
one: evolution on the models (`proposing.py`) finds the member that is expected to make the front's hypervolume grow
most, or for a share of the picks, a reward of those that are given (`improvement.py`). What is picked counts as seen,
with the value predicted ("Kriging believer", Ginsbourger et al. 2010), so that a batch does not pick the same twice.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mnas.controller.coding import Coded, Coding
from mnas.controller.gaussian import Array, Process, condition, fit
from mnas.controller.improvement import (
    Forecast,
    expected_reward,
    hypervolume_improvement,
    reward_improvement,
    tabulate,
)
from mnas.controller.one_thread import one_thread
from mnas.controller.proposing import Indices, search, spread_design
from mnas.controller.sampler import Batch, ClosedBatchSampler, Reward, require_int, require_number
from mnas.controller.view import KNOWN_VALUES

FEWEST = 4
"""COMPLETE trials that a model is fitted to, at least."""
GROWTH = 1.1
"""Hyper-parameters are chosen anew whenever there are so many times the trials of the last time."""
SEARCHED = 400
"""Trials that they are chosen on, at most: it costs their cube."""
LARGEST = 1200
"""Trials that predictions are made from, at most."""
FIRST = 300
"""Of these, from the beginning; the others are the last."""
LOG_RANGE = 2.0
"""The logarithm of a value may be modelled where its largest is so many times its smallest, above 0."""
POOL = 1000
"""Random members whose predictions place the reference point."""
REFERENCE_QUANTILE = 0.05
"""Share of them that is worse, in each objective."""
RANDOM_STARTS = 128
GENERATIONS = 25
LATER_GENERATIONS = 10
"""Of the picks of a batch after its first."""


@dataclass(frozen=True)
class _Data:
    """The closed trials."""

    indices: Indices
    """(N, D)."""
    values: Array
    """(N, M) as told; NaN where not known."""
    pruned: npt.NDArray[np.bool_]
    trials: list[FrozenTrial]
    taken: frozenset[tuple[int, ...]]
    """All members drawn, failed ones too."""

    @property
    def completed(self) -> Array:
        """(N,) 1, or 0 for those pruned."""
        return np.where(self.pruned, 0.0, 1.0)

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """(N,)."""
        known: npt.NDArray[np.bool_] = np.isfinite(self.values).all(axis=1) & ~self.pruned
        return known


@dataclass(frozen=True)
class _Model:
    """Of one objective, or of whether a trial is completed (1) or pruned (0)."""

    process: Process
    is_log: bool
    sign: int

    def forecast(self, coded: Coded) -> Forecast:
        mean, deviation = self.process.predict(coded)
        return Forecast(mean, deviation, self.is_log, self.sign)

    def believing(self, coded: Coded) -> "_Model":
        return _Model(self.process.believing(coded), self.is_log, self.sign)


class SurrogateSampler(ClosedBatchSampler):
    """Expected improvement of hypervolume and reward under Gaussian processes, for studies of one or two objectives.

    It learns from the values themselves. Of a PRUNED trial it learns those in the user attribute `known_values` (a list
    as long as the objectives, None for what is not known), and where trials are pruned; of FAIL ones nothing, but it
    draws no member twice while there are others. The first trials are a design in which all choices come equally often.
    Proposals are a function of seed, number and closed batches, to the bit and for any number of threads.

    Args:
        space, seed: as in `ClosedBatchSampler`.
        batch_size: trials that are picked from the same models; the smaller, the fewer trials are needed.
        reward: what a COMPLETE trial is worth, from its values; one or several, or None. A share of the picks is for
            them. Of a study of one objective the value itself counts.
        reward_share: of the picks that are for the rewards, in turn, and not for the hypervolume; 0 to 1.
        design_size: trials before the first model.

    Raises:
        ValueError: as `ClosedBatchSampler`; or a study of three objectives or more.
    """

    def __init__(
        self,
        space: Mapping[str, CategoricalDistribution],
        *,
        seed: int,
        batch_size: int = 5,
        reward: Reward | Sequence[Reward] | None = None,
        reward_share: float = 0.4,
        design_size: int = 15,
    ) -> None:
        super().__init__(space, seed=seed, batch_size=batch_size, reward=None)
        require_number("reward_share", reward_share, 0, 1)
        require_int("design_size", design_size, FEWEST)
        self._rewards: tuple[Reward, ...] = () if reward is None else (reward,) if callable(reward) else tuple(reward)
        self._reward_share = reward_share if self._rewards else 0.0
        self._design_size = design_size
        self._coding = Coding(self._space)
        self._signs: tuple[int, ...] = ()
        self._learned: tuple[Batch, ...] = ()
        self._models: tuple[tuple[Batch, ...], list[_Model], _Data] | None = None
        self._fits: dict[tuple[int, str], tuple[tuple[Batch, ...], Any]] = {}
        self._plan: tuple[tuple[Batch, ...], int, list[tuple[int, ...]]] | None = None

    # Reading

    def _check(self, directions: Sequence[StudyDirection]) -> None:
        if len(directions) > 2:
            raise ValueError(f"a study must have one or two objectives for SurrogateSampler, but got {len(directions)}")
        self._signs = tuple(-1 if d == StudyDirection.MINIMIZE else 1 for d in directions)

    def _reward_of(self, trial: FrozenTrial, directions: Sequence[StudyDirection]) -> float:
        return 0.0

    def _read(self, batches: Sequence[Batch]) -> _Data:
        trials, rows, values = [], [], []
        taken = set()
        for batch in batches:
            for trial in batch.trials:
                if not self._space.keys() <= trial.params.keys():
                    continue
                row = self._indices(trial)
                taken.add(row)
                if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                    trials.append(trial)
                    rows.append(row)
                    values.append(self._known(trial))
        return _Data(
            indices=np.array(rows, np.int64).reshape(-1, len(self._choices)),
            values=np.array(values).reshape(-1, len(self._signs)),
            pruned=np.array([t.state == TrialState.PRUNED for t in trials], bool),
            trials=trials,
            taken=frozenset(taken),
        )

    def _known(self, trial: FrozenTrial) -> list[float]:
        found = trial.values if trial.state == TrialState.COMPLETE else trial.user_attrs.get(KNOWN_VALUES)
        if not isinstance(found, list) or len(found) != len(self._signs):
            return [math.nan] * len(self._signs)
        return [float(v) if type(v) in (int, float) and math.isfinite(v) else math.nan for v in found]

    # Learning

    def _learn(self, batches: Sequence[Batch]) -> None:
        self._learned = tuple(batches)

    def _refit_count(self, count: int) -> int:
        """How many batches there were when hyper-parameters were last chosen, if there are `count` now."""
        last = 1
        while (following := max(last + 1, math.ceil(last * GROWTH))) <= count:
            last = following
        return last

    def _fitted(self) -> tuple[list[_Model], _Data]:
        """Models of the objectives, then of completion if any trial was pruned; none where too little is known."""
        if self._models is not None and self._models[0] == self._learned:
            return self._models[1], self._models[2]
        data = self._read(self._learned)
        models: list[_Model] = []
        if len(self._learned) and data.complete.sum() >= FEWEST:
            early = self._learned[: self._refit_count(len(self._learned))]
            for objective, sign in enumerate(self._signs):
                models.append(self._model(str(objective), early, data.indices, data.values[:, objective], sign))
        if len(self._learned) and data.pruned.any():
            early = self._learned[: self._refit_count(len(self._learned))]
            models.append(self._model("completed", early, data.indices, data.completed, 1))
        self._models = (self._learned, models, data)
        return models, data

    def _model(self, name: str, early: tuple[Batch, ...], indices: Indices, values: Array, sign: int) -> _Model:
        """Of those values that are known."""
        known = np.isfinite(values)
        indices, values = indices[known], values[known]
        key = (len(early), name)
        if key not in self._fits or self._fits[key][0] != early:
            for old in [k for k in self._fits if k[1] == name]:
                del self._fits[old]
            then = self._read(early)
            column = then.completed if name == "completed" else then.values[:, int(name)]
            self._fits[key] = early, self._choose_parameters(then.indices, column)
        is_log, logs = self._fits[key][1]
        if is_log and values.min() <= 0:  # seen since
            is_log = False
        kept = np.arange(len(values))
        if len(kept) > LARGEST:
            kept = np.concatenate([kept[:FIRST], kept[FIRST - LARGEST :]])
        shown = np.log(values[kept]) if is_log else values[kept]
        return _Model(condition(self._coding, indices[kept], shown, logs), is_log, sign)

    def _choose_parameters(self, indices: Indices, values: Array) -> tuple[bool, Array]:
        known = np.isfinite(values)
        indices, values = indices[known], values[known]
        if not len(values):
            return False, fit(self._coding, np.zeros((1, len(self._choices)), np.int64), np.zeros(1)).logs
        if len(values) > SEARCHED:
            some = np.sort(np.random.default_rng(self._seed).permutation(len(values))[:SEARCHED])
            indices, values = indices[some], values[some]
        plain = fit(self._coding, indices, values)
        if values.min() <= 0 or values.max() < LOG_RANGE * values.min():
            return False, plain.logs
        logarithm = fit(self._coding, indices, np.log(values))
        # the density of a value is that of its logarithm, divided by the value
        if logarithm.improbability + float(np.log(values).sum()) < plain.improbability:
            return True, logarithm.logs
        return False, plain.logs

    def diagnostics(self) -> dict[str, Any]:
        """Of each objective: how well trials are predicted from all others, noise, and each decision's weight."""
        with one_thread(), torch.no_grad():
            models, data = self._fitted()
            if not data.complete.any() or len(models) < len(self._signs):
                return {}
            return {
                "trials": len(data.trials),
                "objectives": [_told(model, list(self._space)) for model in models[: len(self._signs)]],
            }

    # Drawing

    def _choose(self, number: int) -> Sequence[int]:
        if number < self._design_size:
            return self._design[number]
        start = number - number % self._batch_size
        if self._plan is None or self._plan[:2] != (self._learned, start):
            with one_thread(), torch.no_grad():
                self._plan = self._learned, start, self._pick(start)
        return self._plan[2][number - start]

    @cached_property
    def _design(self) -> list[tuple[int, ...]]:
        rows = spread_design(self._choices, self._design_size, np.random.default_rng([self._seed, 1]))
        return [tuple(row) for row in rows.tolist()]

    def _pick(self, start: int) -> list[tuple[int, ...]]:
        """The members for the trials from `start` to the end of its batch."""
        models, data = self._fitted()
        draw = np.random.default_rng([self._seed, 2, start])
        if len(models) < len(self._signs):
            return [tuple(row) for row in self._random(draw, self._batch_size).tolist()]
        taken = set(data.taken)
        if start < self._design_size:
            taken.update(self._design)
        picks: list[tuple[int, ...]] = []
        goals = _Goals(self, models, data, draw)
        for number in range(start, start + self._batch_size):
            if number < self._design_size:
                picks.append(self._design[number])
                continue
            goals.aim(number)
            seeds = np.concatenate([goals.seeds(), self._random(draw, RANDOM_STARTS)])
            found = search(
                goals.score,
                self._choices,
                seeds,
                taken,
                draw,
                GENERATIONS if not picks else LATER_GENERATIONS,
            )
            goals.last = found.members
            row = found.members[:1] if len(found.members) else self._random(draw, 1)
            picks.append(tuple(row[0].tolist()))
            taken.add(picks[-1])
            goals.believe(row)
        return picks

    def _random(self, draw: np.random.Generator, count: int) -> Indices:
        return np.stack([draw.integers(size, size=count) for size in self._choices], axis=1)


class _Goals:
    """What the next pick of a batch is for, given those before it."""

    def __init__(self, sampler: SurrogateSampler, models: list[_Model], data: _Data, draw: np.random.Generator) -> None:
        self._coding, self._signs = sampler._coding, sampler._signs
        self._rewards, self._share = sampler._rewards, sampler._reward_share
        self._models, self._data = models, data
        seen = data.values[data.complete]
        self._gains = seen * np.array(self._signs)
        self._pool = sampler._random(draw, POOL)
        self.last = np.empty((0, len(sampler._choices)), np.int64)
        if len(self._signs) == 2:
            self._reference = self._place_reference()
            like = next(t for t, done in zip(data.trials, data.complete, strict=True) if done)
            fine = 0 if self._signs == (-1, 1) else 1
            self._tables = [tabulate(reward, like, seen, fine) for reward in self._rewards]
            values = torch.from_numpy(seen)
            self._best = [float(t(values[:, 0], values[:, 1]).max()) for t in self._tables]
        self._goal = -1

    def _place_reference(self) -> Array:
        """Where random members are hardly ever worse, or what was seen."""
        coded = self._coding(self._pool)
        found = []
        for model, gains in zip(self._models, self._gains.T, strict=False):
            forecast = model.forecast(coded)
            means = model.sign * forecast.values(torch.zeros(1, dtype=torch.float64))[:, 0]
            found.append(min(float(np.quantile(means.numpy(), REFERENCE_QUANTILE)), float(np.quantile(gains, 0.5))))
        return np.array(found)

    def aim(self, number: int) -> None:
        """At the hypervolume (-1), or a reward."""
        before, after = math.floor(number * self._share), math.floor((number + 1) * self._share)
        self._goal = before % len(self._rewards) if after > before and len(self._signs) == 2 else -1

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
        if len(forecasts) > len(self._signs):
            done = forecasts[-1]
            chance = torch.special.ndtr((done.mean - 0.5) / done.deviation)
            score = torch.where(score > 0, score * chance.clamp_min(1e-3), score)
        return score.numpy()

    def seeds(self) -> Indices:
        """Members to begin a search with: what the last pick's ended with, and what is best of those seen."""
        good = self._data.indices[self._data.complete]
        if len(self._signs) == 2 and self._goal >= 0:
            values = torch.from_numpy(self._data.values[self._data.complete])
            worth = self._tables[self._goal](values[:, 0], values[:, 1]).numpy()
            order = np.argsort(-worth, kind="stable")
        elif len(self._signs) == 2:
            order = np.argsort(_dominated_by(self._gains[: len(good)]), kind="stable")
        else:
            order = np.argsort(-self._gains[: len(good), 0], kind="stable")
        return np.concatenate([self.last, good[order[:64]]])

    def believe(self, row: Indices) -> None:
        """Count `row` as seen, with the values predicted."""
        coded = self._coding(row)
        zero = torch.zeros(1, dtype=torch.float64)
        values = [float(m.forecast(coded).values(zero)[0, 0]) for m in self._models]
        gains = np.array([v * s for v, s in zip(values, self._signs, strict=False)])
        self._gains = np.concatenate([self._gains, gains[None]])
        self._models = [model.believing(coded) for model in self._models]
        if len(self._signs) == 2:
            told = torch.tensor(values, dtype=torch.float64)
            for goal, table in enumerate(self._tables):
                self._best[goal] = max(self._best[goal], float(table(told[:1], told[1:2])[0]))


def _dominated_by(gains: Array) -> npt.NDArray[np.int64]:
    """(N,) how many others are better in both, or equal in one and better in the other."""
    at_least = (gains[:, None] <= gains[None]).all(axis=2)
    equal = (gains[:, None] == gains[None]).all(axis=2)
    counts: npt.NDArray[np.int64] = (at_least & ~equal).sum(axis=1)
    return counts


def _told(model: _Model, names: Sequence[str]) -> dict[str, Any]:
    process = model.process
    means, deviations = process.left_out()
    values = (process.factor @ (process.factor.T @ process.weights)).numpy() * process.scale + process.mean
    missed = values - means
    spread = float(values.var())
    return {
        "trials": len(values),
        "logarithm": model.is_log,
        "left_out_r2": 1 - float((missed**2).mean()) / spread if spread > 0 else None,
        "left_out_error": float(np.sqrt((missed**2).mean())),
        "predicted_error": float(np.sqrt((deviations**2).mean())),
        "noise": process.noise,
        "weights": dict(zip(names, process.decision_weights().tolist(), strict=True)),
    }
