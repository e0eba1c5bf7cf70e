import math

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from mnas.controller.evolution import RegularizedEvolutionSampler

SPACE = {f"d{d}": CategoricalDistribution([0, 1, 2]) for d in range(10)}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def share(trial: optuna.Trial) -> float:
    """The share of decisions that took their last choice."""
    return sum(trial.suggest_categorical(name, [0, 1, 2]) == 2 for name in SPACE) / len(SPACE)


def run(sampler: optuna.samplers.BaseSampler, trials: int) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(share, n_trials=trials)
    return study


def test_children_are_one_mutation_from_the_best_of_the_youngest_when_all_compete() -> None:
    # a tournament of 1,000 draws among 8 leaves one out with probability 8 * (7/8)^1000 < 1e-56
    sampler = RegularizedEvolutionSampler(SPACE, seed=0, batch_size=4, population_size=8, tournament_size=1000)
    trials = run(sampler, 80).trials
    for trial in trials[8:]:
        youngest = trials[: trial.number // 4 * 4][-8:]
        best = max(youngest, key=lambda t: t.value or 0.0).value
        parents = [t.params for t in youngest if t.value == best]
        assert 1 in [sum(trial.params[name] != parent[name] for name in SPACE) for parent in parents]


def test_a_tournament_of_one_draws_parents_from_the_whole_population_and_old_ones_die() -> None:
    sampler = RegularizedEvolutionSampler(SPACE, seed=0, batch_size=5, population_size=5, tournament_size=1)
    trials = run(sampler, 60).trials
    parents = set()
    for trial in trials[5:]:
        youngest = trials[: trial.number // 5 * 5][-5:]
        steps = [sum(trial.params[n] != t.params[n] for n in SPACE) for t in youngest]
        assert 1 in steps
        parents.add(steps.index(1))
    assert parents == {0, 1, 2, 3, 4}


def test_random_until_the_population_is_full_of_finished_trials() -> None:
    sampler = RegularizedEvolutionSampler(SPACE, seed=0, batch_size=4, population_size=8, tournament_size=8)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for number in range(16):
        trial = study.ask(dict(SPACE))
        study.tell(trial, None if number in (1, 6) else 1.0, TrialState.FAIL if number in (1, 6) else None)
    sampler.learn(study, 12)
    assert sampler.diagnostics()["population"] == 8  # 10 of 12 have finished, the last 8 of them live
    assert sampler.diagnostics()["trials"] == 10
    distances = [
        min(sum(t.params[n] != other.params[n] for n in SPACE) for other in study.trials[: t.number // 4 * 4])
        for t in study.trials[4:]
    ]
    assert min(distances[:8]) > 1  # 8 and more from random ones: batches 1 and 2 (6 finished by then)
    assert distances[8:] == [1, 1, 1, 1]


def test_mutation_is_uniform_over_decisions_and_values() -> None:
    space = {
        "a": CategoricalDistribution([0, 1, 2, 3]),
        "b": CategoricalDistribution([9]),
        "c": CategoricalDistribution([0, 1]),
    }
    sampler = RegularizedEvolutionSampler(space, seed=0, batch_size=2, population_size=2, tournament_size=2)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(2):
        study.enqueue_trial({"a": 1, "b": 9, "c": 0})
        study.tell(study.ask(dict(space)), 1.0)
    sampler.learn(study, 2)
    children = [tuple(sampler._choose(number)) for number in range(2, 1202)]
    counts = {child: children.count(child) for child in sorted(set(children))}
    assert counts.keys() == {(0, 0, 0), (2, 0, 0), (3, 0, 0), (1, 0, 1)}
    assert abs(counts[1, 0, 1] - 600) < 5 * math.sqrt(300)  # five standard deviations
    for value in (0, 2, 3):
        assert abs(counts[value, 0, 0] - 200) < 5 * math.sqrt(1200 / 6 * 5 / 6)


def test_diagnostics_describe_the_population() -> None:
    sampler = RegularizedEvolutionSampler(SPACE, seed=0, batch_size=2, population_size=4, tournament_size=2)
    assert sampler.diagnostics() == {}
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for number in range(6):
        study.enqueue_trial(dict.fromkeys(SPACE, number % 2))
        study.tell(study.ask(dict(SPACE)), number / 10)
    sampler.learn(study, 6)
    diagnostics = sampler.diagnostics()
    assert diagnostics["entropy_per_decision"] == pytest.approx(dict.fromkeys(SPACE, math.log(2)))
    del diagnostics["entropy_per_decision"]
    assert diagnostics == {"trials": 6, "population": 4, "mean_reward": pytest.approx(0.35), "best_reward": 0.5}


def test_evolution_beats_random() -> None:
    """False alarm: at most 5e-18 for each seed, by the same bound as PPO's with t = 0.2.

    Were it no better than random, both means would be of 1,000 independent choices, each 1 or 0: by Hoeffding's
    inequality they differ by more than t with a probability of at most exp(-1000 t^2).
    """
    for seed in (0, 1):
        sampler = RegularizedEvolutionSampler(SPACE, seed=seed, population_size=40, tournament_size=10)
        means = [
            np.mean([t.value for t in run(s, trials).trials[-100:]])
            for s, trials in ((sampler, 400), (optuna.samplers.RandomSampler(seed=seed), 100))
        ]
        assert means[0] > means[1] + 0.2, (seed, means)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="population_size must be an integer of 2 or more, but got 1"):
        RegularizedEvolutionSampler(SPACE, seed=0, population_size=1)
    with pytest.raises(ValueError, match="tournament_size must be an integer of 1 or more, but got 0"):
        RegularizedEvolutionSampler(SPACE, seed=0, tournament_size=0)
