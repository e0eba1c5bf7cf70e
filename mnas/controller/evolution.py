"""Regularised evolution: tournaments in a population that dies of age.

Real et al., "Regularized Evolution for Image Classifier Architecture Search" (AAAI 2019, arXiv:1802.01548),
algorithm 1, with its population of 100 and sample of 25. Departures:
1. All children of a batch have parents from the same population, that of the last closed batch.
2. A mutation changes one decision, drawn uniformly among those with a choice, to another of its values; the
   paper's are of its cells (an operation, a connection, or nothing).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution

from mnas.controller.sampler import Batch, ClosedBatchSampler, DrawnSample, Reward
from mnas.require import require_int


class RegularizedEvolutionSampler(ClosedBatchSampler):
    """Evolution that mutates the best of a random part of the youngest trials.

    See `ClosedBatchSampler` for the data it learns from and errors. Draws are random until `population_size` trials of
    earlier batches have finished.

    Args:
        space, seed, batch_size, reward: as in `ClosedBatchSampler`.
        population_size: number of last finished trials that live, 2 or more.
        tournament_size: number of these, drawn with replacement, that compete to be a parent.
    """

    def __init__(
        self,
        space: Mapping[str, CategoricalDistribution],
        *,
        seed: int,
        batch_size: int = 20,
        population_size: int = 100,
        tournament_size: int = 25,
        reward: Reward | None = None,
    ) -> None:
        super().__init__(space, seed=seed, batch_size=batch_size, reward=reward)
        require_int("population_size", population_size, 2)
        require_int("tournament_size", tournament_size, 1)
        self._population_size = population_size
        self._tournament_size = tournament_size
        self._population: list[DrawnSample] = []
        self._trials = 0

    def diagnostics(self) -> dict[str, Any]:
        """Return the number of trials; and the population's size, mean and best reward, and entropies (nats)."""
        if not self._population:
            return {}
        rewards = [sample.reward for sample in self._population]
        columns = zip(*(sample.indices for sample in self._population), strict=True)
        return {
            "trials": self._trials,
            "population": len(rewards),
            "mean_reward": float(np.mean(rewards)),
            "best_reward": max(rewards),
            "entropy_per_decision": {name: _entropy(c) for name, c in zip(self._space, columns, strict=True)},
        }

    def _learn(self, batches: Sequence[Batch]) -> None:
        self._trials = sum(len(batch.samples) for batch in batches)
        population: list[DrawnSample] = []
        for batch in reversed(batches):
            if len(population) >= self._population_size:
                break
            population = [*batch.samples, *population]
        self._population = population[-self._population_size :]

    def _choose(self, number: int) -> Sequence[int]:
        rng = np.random.default_rng([self._seed, number])
        if len(self._population) < self._population_size:
            return [int(rng.integers(choices)) for choices in self._choices]
        contestants = [self._population[i] for i in rng.integers(self._population_size, size=self._tournament_size)]
        child = list(max(contestants, key=lambda sample: sample.reward).indices)
        mutable = [d for d, choices in enumerate(self._choices) if choices > 1]
        if mutable:
            decision = mutable[int(rng.integers(len(mutable)))]
            step = 1 + int(rng.integers(self._choices[decision] - 1))  # never 0, so the value changes
            child[decision] = (child[decision] + step) % self._choices[decision]
        return child


def _entropy(values: Sequence[int]) -> float:
    shares = np.array(list(Counter(values).values())) / len(values)
    return float(-(shares * np.log(shares)).sum())
