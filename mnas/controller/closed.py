"""The rule of closed batches, for any controller: what the search draws its trials with."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from mnas.controller.named import make_sampler
from mnas.controller.sampler import ClosedBatchSampler, Reward, require_int
from mnas.controller.surrogate import Canonical
from mnas.controller.view import Direction, Draw, View


class ClosedBatches:
    """Draws trial after trial of a stored study.

    Trial n is a function of the arguments here, of params, system attributes, state and values of the trials of closed
    batches (those before batch n // batch_size; of pruned ones also `known_values`), and of params and system
    attributes of the trials of its own batch with smaller numbers. Whether this object drew them, or another in a
    process that has died, makes no difference, nor does when, in which order and with what result the trials of the
    running batch end. To use it:

        batches = ClosedBatches("ppo", space, directions=["maximize", "minimize"], seed=0, batch_size=20, reward=reward)
        number = len(study.trials)                # where number % batch_size == 0: once all before it have finished
        draw = batches.draw(study.get_trials(deepcopy=False), number)
        study.add_trial(create_trial(state=TrialState.RUNNING, params=draw.params, distributions=space,
                                     system_attrs=draw.system_attrs))

    A trial is stored whole in one transaction, so numbers have no gaps; a killed process left trials that are RUNNING
    and complete but for their values. One object, one study, one thread.

    Args:
        controller: a name from `CONTROLLERS`.
        space: name -> distribution of every decision, in the order in which they are taken.
        directions: the study's.
        seed: 0 or more.
        batch_size: trials that are drawn from the same closed batches.
        reward: what a COMPLETE trial is worth, more being better, from its values and params (all that it is given of
            a trial). For `surrogate` from its values alone, and also several, of which each gets its part of the
            trials. May be None for a study of one objective, and for controllers that maximise no reward.
        canonical: indices -> those that stand for all that are the same thing; for `surrogate`, see there.

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
        require_int("seed", seed, 0)
        require_int("batch_size", batch_size, 1)
        self._controller = controller
        self._space = dict(space)
        self._seed = seed
        self._batch_size = batch_size
        self._reward = reward
        self._canonical = canonical
        self._view = View(directions)
        self._sampler = self._make_sampler(0)

    def _make_sampler(self, number: int) -> BaseSampler:
        return make_sampler(
            self._controller,
            self._space,
            seed=self._seed,
            number=number,
            batch_size=self._batch_size,
            reward=self._reward,
            canonical=self._canonical,
        )

    def draw(self, trials: Sequence[FrozenTrial], number: int) -> Draw:
        """What trial `number` is, from the study's `trials` in order of number, of which those before it are needed.

        Raises:
            ValueError: a trial before it is missing, or one of an earlier batch runs; also what `reward` raises.
        """
        closed = number - number % self._batch_size
        if len(trials) < number:
            raise ValueError(f"trial {number} is drawn after all before it, but got {len(trials)} trials")
        self._view.show(trials[:number], closed=closed)
        if not isinstance(self._sampler, ClosedBatchSampler):
            self._sampler = self._make_sampler(number)
        return self._view.ask(self._sampler, self._space)

    def close(self, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        """Learn from the batches that are closed by now, as the next draw would; returns the sampler's `diagnostics()`.

        {} for Optuna's own samplers, which learn nothing before they draw.
        """
        if not isinstance(self._sampler, ClosedBatchSampler):
            return {}
        unfinished = (trial.number for trial in trials if not trial.state.is_finished())
        closed = next(unfinished, len(trials)) // self._batch_size * self._batch_size
        self._sampler.learn(self._view.show(trials, closed=closed), closed)
        return self._sampler.diagnostics()
