"""Samplers as they are usually run, for `mnas bench` to compare ours with.

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
    """NSGA-II with a population of 20, where `nsga2` has Optuna's default of 50; trial after trial, no batches."""
    return NSGAIISampler(population_size=20, seed=seed)


class _PlainLearner(_Learner):
    """Advantages are rewards standardised over the batch, as PPO is mostly written; no moving baseline."""

    def _advantages(self, rewards: list[float]) -> Tensor:
        told = torch.tensor(rewards, dtype=torch.float64)
        self.baseline = float(told.mean())
        return ((told - told.mean()) / (told.std() + 1e-8)).float()


class _PlainPPO(PPOSampler):
    def _new_learner(self) -> _PlainLearner:
        return _PlainLearner(super()._new_learner().policy, self._settings)


def plain_ppo(
    space: Mapping[str, CategoricalDistribution], seed: int, reward: Reward, batch_size: int = 20
) -> PPOSampler:
    """`ppo` with the common normalisation of advantages in the place of NASNet's baseline; equal in all else."""
    return _PlainPPO(space, seed=seed, batch_size=batch_size, reward=reward)
