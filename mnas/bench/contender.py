"""What is compared: a controller of ours by its name, or anybody's Optuna sampler as `module:factory`."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from mnas.controller.named import CONTROLLERS
from mnas.objective import Objective

GIVEN = ("space", "seed", "reward", "batch_size")
"""What a factory may have as parameters, and is then given."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One search: who draws, from what seed, and towards what."""

    controller: str
    """A name in CONTROLLERS, or `module:factory`."""
    candidates_per_update: int
    """Of a controller by name: trials that are drawn from the same closed batches. A `module:factory` learns from every
    trial at once, as in any Optuna study."""
    seed: int
    objective: Objective | None
    """What the controller maximises; None where it sees accuracies and costs only."""

    @property
    def ours(self) -> bool:
        """Whether it is a controller by name."""
        return self.controller in CONTROLLERS

    def reward(self, trial: FrozenTrial) -> float:
        """What a trial is worth to it."""
        assert self.objective is not None
        return self.objective.reward(trial.values[0], trial.values[1])

    def sampler(self, space: Mapping[str, CategoricalDistribution]) -> BaseSampler:
        """Of a `module:factory`: a new sampler. Raises ValueError, on one line, where that fails."""
        factory = find_factory(self.controller)
        values: dict[str, Any] = {
            "space": dict(space),
            "seed": self.seed,
            "reward": self.reward,
            "batch_size": self.candidates_per_update,
        }
        try:
            sampler = factory(**{name: values[name] for name in _parameters(factory)})
        except (Exception, SystemExit) as error:  # whatever somebody's code may raise
            raise ValueError(f"{self.controller} cannot be called: {_one_line(error)}") from error
        if not isinstance(sampler, BaseSampler):
            raise ValueError(
                f"{self.controller} must return an optuna.samplers.BaseSampler, but got {type(sampler).__name__}"
            )
        return sampler


def takes_reward(controller: str) -> bool:
    """Whether the controller maximises a reward; else it sees accuracies and costs only. Raises ValueError."""
    if controller in CONTROLLERS:
        return isinstance(CONTROLLERS[controller], type)
    return "reward" in _parameters(find_factory(controller))


def find_factory(name: str) -> Callable[..., object]:
    """What `module:factory` names, found as `python -m` would: in the current folder too.

    Raises:
        ValueError: neither that nor a controller's name, no such module or attribute, or it cannot be called.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(
            f"controller must be one of {', '.join(CONTROLLERS)}, or module:factory (optuna.samplers:TPESampler), "
            f"but got {name!r}"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever somebody's code may raise
        raise ValueError(f"{name}: {module_name} cannot be imported: {_one_line(error)}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ValueError(f"{name}: {attribute} must be something in {module_name} to call, but got {factory!r}")
    found: Callable[..., object] = factory
    return found


def _parameters(factory: Callable[..., object]) -> list[str]:
    """Which of `GIVEN` it takes."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return []
    return [name for name in GIVEN if name in parameters]


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
