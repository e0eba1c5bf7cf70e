"""Search by models of the trials' values: the controller for dozens to hundreds of trials.

A Gaussian process for each objective (`gaussian.py`) is fitted to the closed batches. Then a batch is picked member by
member: evolution on the models (`proposing.py`) finds the member with the largest expected growth of the front's
hypervolume, or, for a share of the picks, of one of the given rewards (`improvement.py`). A pick counts as seen, with
its predicted value ("Kriging believer", Ginsbourger et al. 2010), so that a batch does not pick the same member twice.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import compress
from numbers import Real
from typing import Any

import numpy as np
import torch
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mnas.controller.one_thread import one_thread
from mnas.controller.sampler import Batch, ClosedBatchSampler, Reward
from mnas.controller.surrogate.broken import without_broken
from mnas.controller.surrogate.coding import Coded, Coding
from mnas.controller.surrogate.gaussian import Array, condition, fit
from mnas.controller.surrogate.goals import Aims, Data, GoalModel, Goals, Models, Row, with_beside
from mnas.controller.surrogate.proposing import Indices, search, spread_design
from mnas.controller.view import KNOWN_VALUES
from mnas.require import require_int, require_number

FEWEST = 4
"""Minimum number of COMPLETE trials to fit a model to."""
GROWTH = 1.1
"""Growth of the number of trials after which hyper-parameters are chosen again."""
SEARCHED = 400
"""Maximum number of trials to choose hyper-parameters on; the cost grows with its cube."""
LATER_GROWTH = 1.5
"""Growth that replaces `GROWTH` beyond that number of trials."""
LARGEST = 800
"""Maximum number of trials to predict from."""
FIRST = 300
"""Number of these from the beginning; the others are the latest."""
LOG_RANGE = 2.0
"""Ratio of a value's largest to its smallest positive one from which its logarithm may be modelled."""
HUGE = 1e100
"""Cap of values, as squares of larger ones would overflow."""
POOL = 1000
"""Number of random members whose predictions place the reference point."""
RANDOM_STARTS = 128
COMPARED = 16
"""Number of the best members that are compared in their canonical form."""
GENERATIONS = 25
LATER_GENERATIONS = 10
"""Generations for the picks of a batch after its first."""


Canonical = Callable[[Row], Sequence[int]]


class SurrogateSampler(ClosedBatchSampler):
    """Expected improvement of hypervolume and reward under Gaussian processes, for studies of one or two objectives.

    It learns from the values themselves. From a PRUNED trial it learns the values in the user attribute `known_values`
    (a list as long as the objectives, None for unknown ones), and where trials are pruned. From FAIL ones it learns
    nothing, but it draws no member twice while others remain. The first trials are a design in which all choices occur
    equally often. Proposals are a function of seed, number and closed batches, to the bit and for any number of
    threads.

    Args:
        space, seed: as in `ClosedBatchSampler`.
        batch_size: trials that are picked from the same models; smaller batches need fewer trials.
        reward: function from a COMPLETE trial's values to its reward; one or several, or None. A share of the picks
            is for them. In a study of one objective, the value itself counts.
        reward_share: share of the picks that are for the rewards, in turn, instead of the hypervolume; 0 to 1.
        design_size: trials before the first model.
        canonical: indices -> the indices that represent all equal members, where several index vectors are one
            thing. Then only these are drawn, and nothing twice. None: all members differ.

    Raises:
        ValueError: as `ClosedBatchSampler`; or the study has three objectives or more.
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
        canonical: Canonical | None = None,
    ) -> None:
        super().__init__(space, seed=seed, batch_size=batch_size, reward=None)
        require_number("reward_share", reward_share, 0, 1)
        require_int("design_size", design_size, FEWEST)
        rewards = () if reward is None else (reward,) if callable(reward) else tuple(reward)
        self._aims = Aims(rewards, reward_share if rewards else 0.0)
        self._design_size = design_size
        self._canonical_of = canonical
        self._known_canonical: dict[Row, Row] = {}
        self._coding = Coding(self._space)
        self._signs: tuple[int, ...] = ()
        self._learned: tuple[Batch, ...] = ()
        self._models: tuple[tuple[Batch, ...], Models, Data] | None = None
        self._fits: dict[str, tuple[tuple[Batch, ...], tuple[bool, Array]]] = {}
        self._plan: tuple[tuple[Batch, ...], int, list[Row]] | None = None

    # Reading

    def _check(self, directions: Sequence[StudyDirection]) -> None:
        if len(directions) > 2:
            raise ValueError(f"a study must have one or two objectives for SurrogateSampler, but got {len(directions)}")
        self._signs = tuple(-1 if d == StudyDirection.MINIMIZE else 1 for d in directions)

    def _reward_of(self, trial: FrozenTrial, directions: Sequence[StudyDirection]) -> float:
        return 0.0

    def _read(self, batches: Sequence[Batch]) -> Data:
        trials, rows, values = [], [], []
        drawn = set()
        for batch in batches:
            for trial in batch.trials:
                if not self._space.keys() <= trial.params.keys():
                    continue
                row = self._canonical(self._indices(trial))
                drawn.add(row)
                if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                    trials.append(trial)
                    rows.append(row)
                    values.append(self._finite_values(trial))
        return Data(
            indices=np.array(rows, np.int64).reshape(-1, len(self._choices)),
            values=np.array(values).reshape(-1, len(self._signs)),
            pruned=np.array([t.state == TrialState.PRUNED for t in trials], bool),
            trials=trials,
            drawn=frozenset(drawn),
        )

    def _canonical(self, row: Row) -> Row:
        if self._canonical_of is None:
            return row
        if row not in self._known_canonical:
            self._known_canonical[row] = tuple(self._canonical_of(row))
        return self._known_canonical[row]

    def _finite_values(self, trial: FrozenTrial) -> list[float]:
        values = trial.values if trial.state == TrialState.COMPLETE else trial.user_attrs.get(KNOWN_VALUES)
        if not isinstance(values, list) or len(values) != len(self._signs):
            return [math.nan] * len(self._signs)
        numbers = (float(v) if isinstance(v, Real) and math.isfinite(v) else math.nan for v in values)
        return [math.copysign(HUGE, v) if abs(v) > HUGE else v for v in numbers]

    # Learning

    def _learn(self, batches: Sequence[Batch]) -> None:
        self._learned = tuple(batches)

    def _refit_count(self, count: int) -> int:
        """Return the number of batches at the last choice of hyper-parameters, given `count` batches."""
        last = following = 1
        while following <= count:
            last = following
            growth = GROWTH if last * self._batch_size <= SEARCHED else LATER_GROWTH
            following = max(last + 1, math.ceil(last * growth))
        return last

    def _fitted(self) -> tuple[Models, Data]:
        if self._models is not None and self._models[0] == self._learned:
            return self._models[1], self._models[2]
        data = self._read(self._learned)
        early = self._learned[: self._refit_count(len(self._learned))]
        if sum(t.number < len(early) * self._batch_size for t in compress(data.trials, data.complete)) < FEWEST:
            early = self._learned
        objectives, data = self._objectives(data, early)
        completed = None
        if data.pruned.any():
            completed, _ = self._model("completed", early, data.indices, data.completed, 1)
        self._models = self._learned, Models(objectives, completed), data
        return self._models[1], data

    def _objectives(self, data: Data, early: tuple[Batch, ...]) -> tuple[list[GoalModel], Data]:
        """Return a model of each objective, and the data with broken trials as pruned; no models for too few data."""
        if data.complete.sum() < FEWEST:
            return [], data
        lost = data.pruned.copy()
        models: dict[int, GoalModel] = {}
        for objective in sorted(range(len(self._signs)), key=lambda o: o != self._feature_objective):
            models[objective], broken = self._objective(objective, early, data, models.get(self._feature_objective))
            lost[broken] = True
        return [models[o] for o in sorted(models)], replace(data, pruned=lost)

    @property
    def _feature_objective(self) -> int:
        """Index of the minimised objective, whose prediction is an extra input feature of the other's model.

        Costs are learned from few trials, and large networks are both slow and accurate, so costs help to predict the
        rest.
        """
        return self._signs.index(-1) if -1 in self._signs else 0

    def _objective(
        self, objective: int, early: tuple[Batch, ...], data: Data, beside: GoalModel | None
    ) -> tuple[GoalModel, Indices]:
        values, sign = data.values[:, objective], self._signs[objective]
        return self._model(str(objective), early, data.indices, values, sign, beside)

    def _model(
        self,
        name: str,
        early: tuple[Batch, ...],
        indices: Indices,
        values: Array,
        sign: int,
        beside: GoalModel | None = None,
    ) -> tuple[GoalModel, Indices]:
        """Return the model of the values that are available, and the broken rows."""
        form, logs = self._parameters(name, early)

        def make(rows: Indices) -> GoalModel:
            is_log = form and bool(values[rows].min() > 0)  # later values may be 0 or less
            targets = np.log(values[rows]) if is_log else values[rows]
            coded = with_beside(self._coding(indices[rows]), beside)
            return GoalModel(condition(self._coding, coded, targets, logs), is_log, sign, beside)

        rows = np.flatnonzero(np.isfinite(values))
        if len(rows) > LARGEST:
            rows = np.concatenate([rows[:FIRST], rows[FIRST - LARGEST :]])
        if name == "completed":
            return make(rows), rows[:0]
        return self._without_broken(make, indices, values, rows)

    def _parameters(self, name: str, early: tuple[Batch, ...]) -> tuple[bool, Array]:
        """Return whether the logarithm is modelled, and the hyper-parameters, from the trials of `early`."""
        if name not in self._fits or self._fits[name][0] != early:
            data = self._read(early)
            if name == "completed":
                _, data = self._objectives(data, early)
                parameters = self._choose_parameters(data.indices, data.completed, 0, None)
            else:
                objective = int(name)
                beside = None
                if objective != self._feature_objective:
                    beside, _ = self._objective(self._feature_objective, early, data, None)
                values, sign = data.values[:, objective], self._signs[objective]
                parameters = self._choose_parameters(data.indices, values, sign, beside)
            self._fits[name] = early, parameters
        return self._fits[name][1]

    def _choose_parameters(
        self, indices: Indices, values: Array, sign: int, beside: GoalModel | None
    ) -> tuple[bool, Array]:
        rows = np.flatnonzero(np.isfinite(values))
        if not len(rows):
            return False, fit(self._coding, self._coding(np.zeros((1, len(self._choices)), np.int64)), np.zeros(1)).logs
        if len(rows) > SEARCHED:
            rows = rows[np.sort(np.random.default_rng(self._seed).permutation(len(rows))[:SEARCHED])]

        def make(rows: Indices) -> GoalModel:
            return self._best_form(with_beside(self._coding(indices[rows]), beside), values[rows], sign, beside)

        model = self._without_broken(make, indices, values, rows)[0] if sign else make(rows)
        return model.is_log, model.process.logs

    def _without_broken(
        self, make: Callable[[Indices], GoalModel], indices: Indices, values: Array, rows: Indices
    ) -> tuple[GoalModel, Indices]:
        def worse(model: GoalModel, rows: Indices) -> Array:
            with np.errstate(divide="ignore", invalid="ignore"):  # the logarithm of 0 or less
                targets = np.log(values[rows]) if model.is_log else values[rows]
            predicted = model.forecast(self._coding(indices[rows])).mean.numpy()
            shortfall: Array = np.nan_to_num(model.sign * (predicted - targets), nan=np.inf)
            return shortfall

        return without_broken(make, worse, rows, self._design_size)

    def _best_form(self, coded: Coded, values: Array, sign: int, beside: GoalModel | None) -> GoalModel:
        plain = fit(self._coding, coded, values)
        if values.min() <= 0 or values.max() < LOG_RANGE * values.min():
            return GoalModel(plain, False, sign, beside)
        logarithm = fit(self._coding, coded, np.log(values))
        # the density of a value is that of its logarithm, divided by the value
        if logarithm.improbability + float(np.log(values).sum()) < plain.improbability:
            return GoalModel(logarithm, True, sign, beside)
        return GoalModel(plain, False, sign, beside)

    def diagnostics(self) -> dict[str, Any]:
        """Return for each objective how well other trials predict a trial, the noise, and the decisions' weights."""
        with one_thread(), torch.no_grad():
            models, data = self._fitted()
            names = list(self._space)
            summaries = [_summary(model, names) for model in models.objectives]
            return {"trials": len(data.trials), "objectives": summaries} if summaries else {}

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
    def _design(self) -> list[Row]:
        rows = spread_design(self._choices, self._design_size, np.random.default_rng([self._seed, 1]))
        return [self._canonical(tuple(row)) for row in rows.tolist()]

    def _pick(self, start: int) -> list[Row]:
        """Return the members for the trials from `start` to the end of its batch."""
        models, data = self._fitted()
        draw = np.random.default_rng([self._seed, 2, start])
        drawn = set(data.drawn)
        if start < self._design_size:
            drawn.update(self._design)
        picks: list[Row] = []
        pool = self._random(draw, POOL)
        goals = Goals(self._coding, self._signs, self._aims, models, data, pool) if models.objectives else None
        for number in range(start, start + self._batch_size):
            if number < self._design_size:
                picks.append(self._design[number])
                continue
            if goals is None:
                picks.append(self._guess(models.completed, drawn, draw))
                drawn.add(picks[-1])
                continue
            goals.aim(number)
            seeds = np.concatenate([goals.seeds(), self._random(draw, RANDOM_STARTS)])
            generations = LATER_GENERATIONS if picks else GENERATIONS
            ranking = search(goals.score, self._choices, seeds, drawn, draw, generations)
            goals.last = ranking.members
            picks.append(self._best(ranking.members, goals, drawn, draw))
            drawn.add(picks[-1])
            goals.believe(np.array(picks[-1:], np.int64))
        return picks

    def _guess(self, completed: GoalModel | None, drawn: set[Row], draw: np.random.Generator) -> Row:
        """Return a random member, or one likely to be completed, drawn from the model's belief (Thompson sampling)."""
        rows = list(dict.fromkeys(self._canonical(row) for row in _rows(self._random(draw, POOL))))
        untried = [row for row in rows if row not in drawn] or rows
        if completed is None:
            return untried[0]
        forecast = completed.forecast(self._coding(np.array(untried, np.int64)))
        believed = forecast.mean.numpy() + forecast.deviation.numpy() * draw.standard_normal(len(untried))
        return untried[int(np.argmax(believed))]

    def _best(self, members: Indices, goals: "Goals", drawn: set[Row], draw: np.random.Generator) -> Row:
        """Return the best of `members` (best first) that is not drawn; a random one where all are."""
        if self._canonical_of is None and len(members):
            return _rows(members)[0]
        for start in range(0, len(members), COMPARED):
            rows = dict.fromkeys(self._canonical(row) for row in _rows(members[start : start + COMPARED]))
            untried = [row for row in rows if row not in drawn]
            if untried:
                return untried[int(np.argmax(goals.score(np.array(untried, np.int64))))]
        return self._guess(None, drawn, draw)

    def _random(self, draw: np.random.Generator, count: int) -> Indices:
        return np.stack([draw.integers(size, size=count) for size in self._choices], axis=1)


def _rows(members: Indices) -> list[Row]:
    return [tuple(row) for row in members.tolist()]


def _summary(model: GoalModel, names: Sequence[str]) -> dict[str, Any]:
    process = model.process
    means, deviations = process.left_out()
    values = process.values
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
