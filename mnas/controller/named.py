"""Controllers by name."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii._elite_population_selection_strategy import NSGAIIElitePopulationSelectionStrategy
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mnas.controller.custom import sampler_of
from mnas.controller.evolution import RegularizedEvolutionSampler
from mnas.controller.ppo import PPOSampler
from mnas.controller.sampler import ClosedBatchSampler, Reward, derived_seed
from mnas.controller.surrogate.surrogate import Canonical, SurrogateSampler
from mnas.imports import imported

NSGA2_POPULATION = 50  # Optuna's default


def _nsga2(seed: int) -> BaseSampler:
    """Return Optuna's NSGA-II, with parents in order of number.

    Optuna picks parents by their place in a list. The list has the order of selection when a generation is selected,
    and the order of numbers when it is read back from the study, so a resumed search would draw other pairs.
    """
    select = NSGAIIElitePopulationSelectionStrategy(population_size=NSGA2_POPULATION)

    def select_in_order(study: Study, population: list[FrozenTrial]) -> list[FrozenTrial]:
        return sorted(select(study, population), key=lambda trial: trial.number)

    return NSGAIISampler(
        population_size=NSGA2_POPULATION, seed=seed, elite_population_selection_strategy=select_in_order
    )


def _tpe(seed: int) -> BaseSampler:
    """Return Optuna's TPE, with joint decisions (`multivariate`), away from running trials (`constant_liar`)."""
    return TPESampler(seed=seed, multivariate=True, constant_liar=True)


class GivenSpace(BaseSampler):
    """An Optuna sampler with a given space, which does not compare the distributions of all trials at every draw.

    That comparison is most of the cost of NSGA-II and TPE: 50 ms of a draw with 42 decisions and 500 trials.
    """

    def __init__(self, sampler: BaseSampler, space: Mapping[str, CategoricalDistribution]) -> None:
        self._sampler = sampler
        # as in Optuna's own samplers, `sample_independent` draws decisions with one choice
        self._space: dict[str, BaseDistribution] = {name: d for name, d in space.items() if not d.single()}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


Ours = type[SurrogateSampler] | type[PPOSampler] | type[RegularizedEvolutionSampler]

CONTROLLERS: dict[str, Ours | Callable[[int], BaseSampler]] = {
    "surrogate": SurrogateSampler,
    "ppo": PPOSampler,
    "evolution": RegularizedEvolutionSampler,
    "random": _random,
    "nsga2": _nsga2,
    "tpe": _tpe,
}
"""Controllers by name: samplers of mnas, and functions of a seed that return one of Optuna's samplers.

Samplers of mnas keep their state between draws. Optuna's are new for every draw, or draws would depend on the process.
"""


SEVERAL_REWARDS = ("surrogate",)
"""Controllers with one sampler for several rewards."""
CANDIDATES_PER_UPDATE = {"surrogate": 5}
"""Best number of trials to draw from the same closed batches; `PAPERS_BATCH` for controllers not named here."""
PAPERS_BATCH = 20
"""Batch size of the paper (Tan et al., MnasNet, section 4.2, with NASNet's appendix A.1)."""


def candidates_per_update(controller: str) -> int:
    """Return the default number of trials that this controller draws from the same closed batches."""
    return CANDIDATES_PER_UPDATE.get(controller, PAPERS_BATCH)


def initial_attrs(controller: str) -> dict[str, Any]:
    """Return the system attributes of an initial trial of a study: a start candidate or an imported trial.

    NSGA-II ignores trials without a generation; the first generation may be larger than the others.
    """
    return {NSGAIISampler._get_generation_key(): 0} if controller == "nsga2" else {}


def make_sampler(
    name: str,
    space: Mapping[str, CategoricalDistribution],
    *,
    seed: int,
    number: int,
    batch_size: int,
    reward: Reward | Sequence[Reward] | None,
    canonical: Canonical | None = None,
) -> BaseSampler:
    """Return the sampler that draws trial `number`.

    `module:factory` is called for every draw, with a seed of its own, unless it returns a `ClosedBatchSampler`. One
    sampler of `surrogate`, `ppo` or `evolution` serves all numbers, which is cheaper. `surrogate` takes several rewards
    and divides its trials among them; only it uses `canonical`. The multi-objective `nsga2` and `tpe` use a study's
    values and no `reward`; `nsga2` learns nothing from pruned trials, and `tpe` ranks them behind all others.

    Raises:
        ValueError: an unknown name, an argument out of its range, or several rewards for `ppo` or `evolution`.
    """
    if name not in CONTROLLERS:
        return _custom(name, space, derived_seed(seed, number), batch_size, reward)
    make = CONTROLLERS[name]
    if make is SurrogateSampler:
        return SurrogateSampler(space, seed=seed, batch_size=batch_size, reward=reward, canonical=canonical)
    if isinstance(make, type):
        ours: BaseSampler = make(space, seed=seed, batch_size=batch_size, reward=_only(name, reward))
        return ours
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # these options are stable from Optuna 5 on
        return GivenSpace(make(derived_seed(seed, number)), space)


def find_controller(name: str, flag: str = "--controller") -> Callable[..., object]:
    """Return the class or function that makes the sampler of a controller, by name or `module:factory`.

    Args:
        flag: option that gave the name, for the error.

    Raises:
        ValueError: the name is unknown, or is no callable of a module.
    """
    if name in CONTROLLERS:
        return CONTROLLERS[name]
    expected = f"one of {', '.join(CONTROLLERS)}, or module:factory (optuna.samplers:TPESampler)"
    return imported(name, flag, expected)


def _custom(
    name: str,
    space: Mapping[str, CategoricalDistribution],
    seed: int,
    batch_size: int,
    reward: Reward | Sequence[Reward] | None,
) -> BaseSampler:
    """Return a new sampler of `module:factory`; an Optuna sampler gets the space, so that a draw is cheap."""
    values = {"space": dict(space), "seed": seed, "reward": _only(name, reward), "batch_size": batch_size}
    sampler = sampler_of(name, find_controller(name), values, "--controller")
    return sampler if isinstance(sampler, ClosedBatchSampler) else GivenSpace(sampler, space)


def _only(name: str, reward: Reward | Sequence[Reward] | None) -> Reward | None:
    if reward is None or callable(reward):
        return reward
    if len(reward) != 1:
        raise ValueError(
            f"--controller {name} maximises one reward, but got {len(reward)} targets; use --controller surrogate, or "
            "one search per target"
        )
    return reward[0]
