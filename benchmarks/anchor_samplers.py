"""Samplers in their usual form, for `mnas bench` to compare with those of mnas.

PYTHONPATH=benchmarks mnas bench --path anb_dataset_jsons.tar.gz --controllers ppo,anchor_samplers:plain_ppo --seeds 20
"""

from collections.abc import Mapping

import torch
from optuna.distributions import CategoricalDistribution
from optuna.samplers import NSGAIISampler
from torch import Tensor

from mnas.controller.ppo import PPOSampler, _Learner
from mnas.controller.sampler import Reward


def nsga2_20(seed: int) -> NSGAIISampler:
    """Return NSGA-II with a population of 20, without batches; `nsga2` has Optuna's default of 50."""
    return NSGAIISampler(population_size=20, seed=seed)


class _PlainLearner(_Learner):
    """A learner whose advantages are rewards standardised over the batch, as is usual, without a moving baseline."""

    def _advantages(self, rewards: list[float]) -> Tensor:
        values = torch.tensor(rewards, dtype=torch.float64)
        self.baseline = float(values.mean())
        return ((values - values.mean()) / (values.std() + 1e-8)).float()


class _PlainPPO(PPOSampler):
    def _new_learner(self) -> _PlainLearner:
        return _PlainLearner(super()._new_learner().policy, self._settings)


def plain_ppo(
    space: Mapping[str, CategoricalDistribution], seed: int, reward: Reward, batch_size: int = 20
) -> PPOSampler:
    """Return `ppo` with the usual normalisation of advantages instead of NASNet's baseline; all else is equal."""
    return _PlainPPO(space, seed=seed, batch_size=batch_size, reward=reward)
