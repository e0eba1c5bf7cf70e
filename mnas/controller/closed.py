"""Closed batches for any controller: the interface that the search draws its trials from."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from mnas.controller.custom import errors_named
from mnas.controller.named import CONTROLLERS, SEVERAL_REWARDS, make_sampler
from mnas.controller.sampler import ClosedBatchSampler, Reward
from mnas.controller.surrogate.surrogate import Canonical
from mnas.controller.view import Direction, Draw, StudyView, require_finished
from mnas.require import require_int


class ClosedBatches:
    """Draws the trials of a stored study, one after the other.

    Trial n is a function of the arguments here; of params, system attributes, state and values of the trials of closed
    batches (those before batch n // batch_size; for pruned ones also `known_values`); and of params and system
    attributes of the trials of its own batch with smaller numbers. It makes no difference which process drew
    them, or when, in which order and with what result the trials of the running batch end. To use it:

        batches = ClosedBatches("ppo", space, directions=["maximize", "minimize"], seed=0, batch_size=20, reward=reward)
        number = len(study.trials)                # where number % batch_size == 0: once all before it have finished
        draw = batches.draw(study.get_trials(deepcopy=False), number)
        study.add_trial(create_trial(state=TrialState.RUNNING, params=draw.params, distributions=space,
                                     system_attrs=draw.system_attrs))

    A trial is stored whole in one transaction, so numbers have no gaps, and the trials of a killed process are RUNNING
    and complete except for their values. Use one object for one study, in one thread.

    Args:
        controller: a name from `CONTROLLERS`, or `module:factory`.
        space: name -> distribution of every decision, in the order of the decisions.
        directions: the study's directions.
        seed: 0 or more.
        batch_size: trials that are drawn from the same closed batches.
        reward: function from a COMPLETE trial's values and params to its reward, more being better; None for a
            study of one objective, and for controllers that maximise no reward. Of several rewards, `surrogate` gives
            each its part of the picks; other controllers that learn from a reward have one sampler for each, which draw
            in turns (trial n for reward n % their number) and all learn from every trial, each by its own reward.
        canonical: indices -> the indices that represent all equal networks; for `surrogate`, see there.

    Raises:
        ValueError: an unknown controller, or an argument out of its range.
    """

    def __init__(
        self,
        controller: str,
        space: Mapping[str, CategoricalDistribution],
        *,
        directions: Sequence[Direction],
        seed: int,
        batch_size: int,
        reward: Reward | Sequence[Reward] | None,
        canonical: Canonical | None = None,
    ) -> None:
        if not isinstance(controller, str):
            raise ValueError(f"controller must be a name, such as 'tpe' or 'annealer:make', but got {controller!r}")
        require_int("seed", seed, 0)
        require_int("batch_size", batch_size, 1)
        self._controller = controller
        self._space = dict(space)
        self._seed = seed
        self._batch_size = batch_size
        rewards = tuple(reward) if isinstance(reward, Sequence) else () if reward is None else (reward,)
        each: Sequence[Reward | Sequence[Reward] | None] = rewards
        if controller in SEVERAL_REWARDS and rewards:
            each = [rewards]
        self._rewards = each or [None]
        """Reward that each sampler learns from."""
        self._canonical = canonical
        self._view = StudyView(directions)
        self._directions = self._view.study.directions
        self._finished = 0
        """Number before which all trials have finished."""
        first = self._make_sampler(0, self._rewards[0])
        self._learning: list[ClosedBatchSampler] = []
        """Sampler for each reward; empty for Optuna's samplers, which are new for every draw."""
        if isinstance(first, ClosedBatchSampler):
            others = [self._make_sampler(0, other) for other in self._rewards[1:]]
            self._learning = [first, *(other for other in others if isinstance(other, ClosedBatchSampler))]

    def _make_sampler(self, number: int, reward: Reward | Sequence[Reward] | None) -> BaseSampler:
        return make_sampler(
            self._controller,
            self._space,
            seed=self._seed,
            number=number,
            batch_size=self._batch_size,
            reward=reward,
            canonical=self._canonical,
        )

    def draw(self, trials: Sequence[FrozenTrial], number: int) -> Draw:
        """Return trial `number`, drawn from the study's `trials` in order of number; only those before it are needed.

        Raises:
            ValueError: a trial before it is missing, one of an earlier batch is running, or the sampler of a
                `module:factory` raises any error; also what `reward` raises.
        """
        closed = number - number % self._batch_size
        if len(trials) < number:
            raise ValueError(f"trial {number} needs all {number} trials before it, but got {len(trials)} trials")
        if self._learning:  # these need no study: Optuna's `ask` compares every distribution several times
            require_finished(trials[self._finished : closed], closed)
            self._finished = closed
            sampler = self._learning[number % len(self._learning)]
            with self._errors_named(number):
                params = sampler.draw_from(trials, self._directions, number)
            return Draw(params=params, system_attrs={})
        self._view.show(trials[:number], closed=closed)
        asked = self._make_sampler(number, self._rewards[0])
        with self._errors_named(number):
            return self._view.ask(asked, self._space)

    def close(self, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        """Learn from the batches closed so far, as the next draw would, and return the sampler's `diagnostics()`.

        Return {} for Optuna's own samplers, which learn nothing before they draw, and the means for several rewards.
        """
        unfinished = (trial.number for trial in trials if not trial.state.is_finished())
        closed = next(unfinished, len(trials)) // self._batch_size * self._batch_size
        with self._errors_named(closed):
            for sampler in self._learning:
                sampler.learn_from(trials, self._directions, closed)
            diagnostics = [sampler.diagnostics() for sampler in self._learning]
            json.dumps(diagnostics)  # the search stores them
        return _mean(diagnostics) if len(diagnostics) > 1 else diagnostics[0] if diagnostics else {}

    def _errors_named(self, number: int) -> contextlib.AbstractContextManager[None]:
        """Return a context that names the controller in errors of a user's sampler; errors of mnas's own are bugs."""
        own = self._controller in CONTROLLERS
        return contextlib.nullcontext() if own else errors_named(self._controller, number)


def _mean(diagnostics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean for each key, nested ones too; whole numbers are the same in all."""
    mean: dict[str, Any] = {}
    for key, value in diagnostics[0].items():
        values = [each[key] for each in diagnostics]
        nested, whole = isinstance(value, Mapping), isinstance(value, int)
        mean[key] = _mean(values) if nested else value if whole else math.fsum(values) / len(values)
    return mean
