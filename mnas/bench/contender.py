"""Contender of a bench: a controller of mnas by name, or any Optuna sampler as `module:factory`."""

from collections.abc import Mapping
from dataclasses import dataclass

from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from mnas.controller.custom import parameters_of, sampler_of
from mnas.controller.named import CONTROLLERS, find_controller
from mnas.objective import Objective


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One search: its controller, seed and objective."""

    controller: str
    """Name in CONTROLLERS, or `module:factory`."""
    candidates_per_update: int
    """Number of trials that a controller by name draws from the same closed batches. A `module:factory` learns from
    every trial immediately, as in any Optuna study."""
    seed: int
    objective: Objective | None
    """Objective that the controller maximises; None where it uses accuracies and costs only."""

    @property
    def ours(self) -> bool:
        """Whether the contender is a controller by name."""
        return self.controller in CONTROLLERS

    def reward(self, trial: FrozenTrial) -> float:
        """Return the reward of a trial under the objective."""
        assert self.objective is not None
        return self.objective.reward(trial.values[0], trial.values[1])

    def sampler(self, space: Mapping[str, CategoricalDistribution]) -> BaseSampler:
        """Return a new sampler of a `module:factory`. Raises ValueError, on one line, where that fails."""
        values = {
            "space": dict(space),
            "seed": self.seed,
            "reward": self.reward,
            "batch_size": self.candidates_per_update,
        }
        return sampler_of(self.controller, find_controller(self.controller, "--controllers"), values, "--controllers")


def takes_reward(controller: str) -> bool:
    """Return whether the controller maximises a reward, or uses accuracies and costs only. Raises ValueError."""
    if controller in CONTROLLERS:
        return isinstance(CONTROLLERS[controller], type)
    return "reward" in parameters_of(find_controller(controller, "--controllers"))
