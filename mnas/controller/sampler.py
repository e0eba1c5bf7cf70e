"""Base of our controllers: an Optuna sampler that depends only on seed, trial number and closed batches.

Trial n belongs to batch n // batch_size. It is drawn from the seed, its number, and the finished trials of *earlier*
batches in order of number. So the order in which parallel workers finish makes no difference, nor does the process that
draws: whatever a sampler keeps between draws is a cache of the study.
"""

import abc
import math
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mnas.require import require_int

Reward = Callable[[FrozenTrial], float]

_DRAWING = (
    threading.RLock()
)  # `study.optimize(n_jobs=...)` draws from threads; a lock of the module leaves samplers picklable


@dataclass(frozen=True, kw_only=True)
class DrawnSample:
    """A finished trial as a controller sees it."""

    number: int
    """Number of the trial in its study."""
    indices: tuple[int, ...]
    """Choice of each decision, as its index among the decision's choices."""
    reward: float
    """Reward of the trial; more is better."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """The finished trials of one closed batch; two are the same only if they are the same object."""

    number: int
    """Number of the batch: 0 for trials 0 to batch_size - 1."""
    trials: list[FrozenTrial]
    """All trials of the batch, to notice a changed study."""
    samples: tuple[DrawnSample, ...]
    """Finished trials, in order of number; empty where all have failed."""
    lowest_reward: float
    """Lowest reward of all completed trials so far, at most 0: the reward of a pruned trial."""


class NotAChoiceError(ValueError):
    """A sampler proposed something that is not in the space; the message names decision, value and choices."""


def require_choice(name: str, distribution: BaseDistribution, value: object) -> None:
    """Raise NotAChoiceError where `value` is not a choice of the decision."""
    try:
        distribution.to_internal_repr(value)
    except (TypeError, ValueError):
        raise NotAChoiceError(f"{name} must be one of {_listed(distribution)}, but got {value!r}") from None


def _listed(distribution: BaseDistribution) -> str:
    return ", ".join(map(repr, distribution.choices)) if isinstance(distribution, CategoricalDistribution) else ""


def derived_seed(seed: int, *numbers: int) -> int:
    """Return 32 bits that depend on every bit of all arguments, which must be 0 or more."""
    return int(np.random.SeedSequence([seed, *numbers]).generate_state(1)[0])


class ClosedBatchSampler(BaseSampler, abc.ABC):
    """An Optuna sampler over `space` that learns from closed batches.

    COMPLETE trials count with their reward. PRUNED ones count as reward 0, or as the lowest reward so far if that is
    below 0. FAIL and RUNNING ones, and ones that lack a parameter of `space`, do not count. With `n_jobs` > 1 in
    Optuna's own `study.optimize`, trials of an earlier batch may still be running at a draw, which then uses the
    finished ones. Such a study does not repeat exactly (`ClosedBatches` waits, so its studies do). Parameters outside
    `space` are drawn at random, from (seed, trial number, name).

    Args:
        space: name -> distribution of every decision, in the order of the decisions.
        seed: 0 or more.
        batch_size: trials that are drawn from the same state.
        reward: function from a COMPLETE trial to its reward, more being better; by default the study's only value,
            by its direction.

    Raises:
        ValueError: an argument is out of its range, or a distribution is not categorical. While drawing: the study
            has several objectives and no `reward`, or a reward is not a finite number.
    """

    def __init__(
        self, space: Mapping[str, CategoricalDistribution], *, seed: int, batch_size: int, reward: Reward | None
    ) -> None:
        if not space:
            raise ValueError("space must have at least one decision, but got none")
        for name, distribution in space.items():
            if not isinstance(distribution, CategoricalDistribution):
                raise ValueError(f"space must contain only CategoricalDistribution, but got {name}={distribution!r}")
        require_int("seed", seed, 0)
        require_int("batch_size", batch_size, 1)
        self._space = dict(space)
        self._choices = tuple(len(d.choices) for d in space.values())
        self._seed = seed
        self._batch_size = batch_size
        self._reward = reward
        self._batches: list[Batch] = []

    # Interface of a controller

    @abc.abstractmethod
    def diagnostics(self) -> dict[str, Any]:
        """Return plain values on the state after the last closed batch that it learned from; {} before the first."""

    @abc.abstractmethod
    def _learn(self, batches: Sequence[Batch]) -> None:
        """Learn from `batches`; a batch object that was in the same place last time needs no work."""

    @abc.abstractmethod
    def _choose(self, number: int) -> Sequence[int]:
        """Return the choice of each decision for trial `number`, from the state that was last learned."""

    # Drawing without a study

    def learn_from(self, trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], number: int) -> None:
        """Learn all that the draw of trial `number` needs; drawing does this by itself."""
        with _DRAWING:
            self._learn(self._closed_batches(trials, directions, number))

    def draw_from(
        self, trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], number: int
    ) -> dict[str, Any]:
        """Return the choice of every decision, by name, for trial `number`, from the trials before it."""
        with _DRAWING:
            self._learn(self._closed_batches(trials, directions, number))
            indices = self._choose(number)
        if len(indices) != len(self._space):
            raise NotAChoiceError(
                f"_choose must return {len(self._space)} indices, one for each decision, but got {len(indices)}"
            )
        drawn = {}
        for (name, distribution), index in zip(self._space.items(), indices, strict=True):
            choices = distribution.choices
            if not 0 <= index < len(choices):
                raise NotAChoiceError(
                    f"{name} must be an index from 0 to {len(choices) - 1} of the choices {_listed(distribution)}, but "
                    f"got {index!r}"
                )
            drawn[name] = choices[index]
        return drawn

    # Optuna's interface

    def learn(self, study: Study, number: int) -> None:
        """Learn as `learn_from` does."""
        self.learn_from(study.get_trials(deepcopy=False), study.directions, number)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        drawn = self.draw_from(study.get_trials(deepcopy=False), study.directions, trial.number)
        return {name: choice for name, choice in drawn.items() if name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        seed = derived_seed(self._seed, trial.number, zlib.crc32(param_name.encode()))
        return RandomSampler(seed=seed).sample_independent(study, trial, param_name, param_distribution)

    # Reading the study

    def _closed_batches(
        self, trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], number: int
    ) -> Sequence[Batch]:
        """Return the batches before that of trial `number`; the same objects as last time up to the first change."""
        self._check(directions)
        for index in range(number // self._batch_size):
            members = list(trials[index * self._batch_size : (index + 1) * self._batch_size])
            if index < len(self._batches):
                if self._batches[index].trials == members:  # fast where the storage returns the same objects
                    continue
                del self._batches[index:]
            self._batches.append(self._read_batch(index, members, directions))
        return self._batches[: number // self._batch_size]

    def _check(self, directions: Sequence[StudyDirection]) -> None:
        """Raise ValueError where a sampler cannot learn from a study of these directions."""
        if self._reward is None and len(directions) > 1:
            raise ValueError(
                f"a study of several objectives needs {type(self).__name__}(..., reward=...), which returns one number "
                f"per trial, but got directions={[d.name.lower() for d in directions]} and no reward"
            )

    def _read_batch(self, index: int, trials: list[FrozenTrial], directions: Sequence[StudyDirection]) -> Batch:
        finished = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        usable = [t for t in finished if self._space.keys() <= t.params.keys()]
        rewards = {t.number: self._reward_of(t, directions) for t in usable if t.state == TrialState.COMPLETE}
        lowest = min([self._batches[-1].lowest_reward if self._batches else 0.0, *rewards.values()])
        samples = tuple(
            DrawnSample(number=t.number, indices=self._indices(t), reward=rewards.get(t.number, lowest)) for t in usable
        )
        return Batch(number=index, trials=trials, samples=samples, lowest_reward=lowest)

    def _reward_of(self, trial: FrozenTrial, directions: Sequence[StudyDirection]) -> float:
        if self._reward is not None:
            reward = float(self._reward(trial))
        else:
            assert trial.value is not None  # Optuna completes no trial without a value
            reward = -trial.value if directions[0] == StudyDirection.MINIMIZE else trial.value
        if not math.isfinite(reward):
            raise ValueError(
                f"a reward must be a finite number, but got {reward!r} for trial {trial.number}; "
                "raise optuna.TrialPruned in the objective, or let the trial fail"
            )
        return reward

    def _indices(self, trial: FrozenTrial) -> tuple[int, ...]:
        return tuple(int(d.to_internal_repr(trial.params[name])) for name, d in self._space.items())
