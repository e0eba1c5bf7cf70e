"""Optuna's own samplers as they are usually run, for `mnas bench` to compare ours with: trial after trial, no batches.

PYTHONPATH=benchmarks mnas bench --path anb_dataset_jsons.tar.gz --controllers anchor_samplers:nsga2_20
"""

from optuna.samplers import NSGAIISampler


def nsga2_20(seed: int) -> NSGAIISampler:
    """NSGA-II with a population of 20, where `nsga2` has Optuna's default of 50."""
    return NSGAIISampler(population_size=20, seed=seed)
