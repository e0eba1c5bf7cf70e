"""Custom controllers: `module:factory` names a function or class that returns an Optuna sampler."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mnas.controller.sampler import ClosedBatchSampler, NotAChoiceError, require_choice
from mnas.imports import described

PARAMETERS = ("space", "seed", "reward", "batch_size")
"""Parameters that a factory may have; it receives only those."""


def parameters_of(factory: Callable[..., object]) -> list[str]:
    """Return which of `PARAMETERS` the factory has."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return []
    return [name for name in PARAMETERS if name in parameters]


def sampler_of(name: str, factory: Callable[..., object], values: Mapping[str, Any], option: str) -> BaseSampler:
    """Return a new sampler of `factory`, called with the `values` that it takes.

    Args:
        option: option that gave the name, for errors.

    Raises:
        ValueError: the call fails or returns something else; the message is one line.
    """
    try:
        sampler = factory(**{parameter: values[parameter] for parameter in parameters_of(factory)})
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise ValueError(f"{option} {name}: calling {name.partition(':')[2]} failed: {described(error)}") from error
    if not isinstance(sampler, BaseSampler):
        raise ValueError(
            f"{option} {name} must return an optuna.samplers.BaseSampler, but got {type(sampler).__name__}"
        )
    return sampler if isinstance(sampler, ClosedBatchSampler) else CheckedSampler(sampler)


@contextlib.contextmanager
def errors_named(name: str, number: int) -> Iterator[None]:
    """Raise an error of a user's sampler as a ValueError of one line, which names the controller and the trial."""
    try:
        yield
    except NotAChoiceError as error:
        raise ValueError(f"{name} failed at trial {number}: {error}") from error
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise ValueError(f"{name} failed at trial {number}: {described(error)}") from error


class CheckedSampler(BaseSampler):
    """A user's sampler that raises NotAChoiceError where it proposes something that is not in the space."""

    def __init__(self, sampler: BaseSampler) -> None:
        self._sampler = sampler

    def reseed_rng(self) -> None:
        self._sampler.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        drawn = self._sampler.sample_relative(study, trial, search_space)
        for name, value in drawn.items():
            if name in search_space:
                require_choice(name, search_space[name], value)
        return drawn

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        value = self._sampler.sample_independent(study, trial, param_name, param_distribution)
        require_choice(param_name, param_distribution, value)
        return value

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)
