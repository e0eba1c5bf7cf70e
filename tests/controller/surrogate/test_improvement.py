import numpy as np
import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, create_trial

from mnas.controller.surrogate.improvement import (
    Forecast,
    expected_reward,
    hypervolume_improvement,
    reward_improvement,
    tabulate,
)
from mnas.objective import Objective, hypervolume

DRAWS = 200_000
FRONT = np.array([[0.5, 3.0], [0.7, 6.0], [0.6, 7.0], [0.65, 4.0], [0.1, 1.0], [0.9, 20.0]])
"""(accuracy, latency_ms): (0.6, 7) is dominated, (0.1, 1) and (0.9, 20) lie beyond the reference."""
REFERENCE = (0.2, 10.0)
CANDIDATES = [(0.6, 0.05, 1.0, 0.3), (0.75, 0.2, 1.5, 0.4), (0.72, 0.01, 1.2, 0.02), (0.3, 0.05, 2.4, 0.5)]
"""Accuracy's mean and standard deviation, and those of the latency's logarithm."""


def forecast(column: int, *, is_log: bool, sign: int) -> Forecast:
    values = torch.tensor([candidate[column : column + 2] for candidate in CANDIDATES], dtype=torch.float64)
    return Forecast(values[:, 0], values[:, 1], is_log, sign)


def draws(candidate: tuple[float, ...], *, is_log: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    accuracy = candidate[0] + candidate[1] * rng.standard_normal(DRAWS)
    latency = candidate[2] + candidate[3] * rng.standard_normal(DRAWS)
    return accuracy, np.exp(latency) if is_log else latency


@pytest.mark.parametrize("is_log", [True, False])
def test_hypervolume_improvement_is_the_mean_of_what_drawn_trials_add(is_log: bool) -> None:
    gains, reference = FRONT * [1, -1], np.array(REFERENCE) * [1, -1]
    found = hypervolume_improvement(
        forecast(0, is_log=False, sign=1), forecast(2, is_log=is_log, sign=-1), gains, reference
    )
    before = hypervolume([(a, b) for a, b in FRONT], REFERENCE)
    for candidate, expected in zip(CANDIDATES, found.tolist(), strict=True):
        pairs = list(zip(*(d[:4000].tolist() for d in draws(candidate, is_log=is_log)), strict=True))
        front = [(a, b) for a, b in FRONT.tolist()]
        grown = np.array([hypervolume([*front, pair], REFERENCE) - before for pair in pairs])
        assert expected == pytest.approx(grown.mean(), abs=4 * grown.std() / np.sqrt(len(grown)) + 1e-9)


def test_hypervolume_improvement_does_not_depend_on_which_objective_is_which_way() -> None:
    first, second = forecast(0, is_log=False, sign=1), forecast(2, is_log=False, sign=-1)
    gains, reference = FRONT * [1, -1], np.array(REFERENCE) * [1, -1]
    found = hypervolume_improvement(first, second, gains, reference)
    swapped = hypervolume_improvement(second, first, gains[:, ::-1], reference[::-1])
    turned = hypervolume_improvement(
        Forecast(-first.mean, first.deviation, False, -1),
        Forecast(-second.mean, second.deviation, False, 1),
        gains,
        reference,
    )
    np.testing.assert_allclose(swapped, found, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(turned, found, rtol=1e-12)


def test_what_is_certain_adds_what_hypervolume_says() -> None:
    points = [(0.68, 3.5), (0.4, 8.0), (0.95, 1.0)]
    values = torch.tensor(points, dtype=torch.float64)
    sure = torch.full((3,), 1e-9, dtype=torch.float64)
    found = hypervolume_improvement(
        Forecast(values[:, 0], sure, False, 1),
        Forecast(values[:, 1], sure, False, -1),
        FRONT * [1, -1],
        np.array(REFERENCE) * [1, -1],
    )
    front = [(a, b) for a, b in FRONT.tolist()]
    grown = [hypervolume([*front, point], REFERENCE) - hypervolume(front, REFERENCE) for point in points]
    np.testing.assert_allclose(found, grown, atol=1e-7)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("is_log", [True, False])
@pytest.mark.parametrize("bound", [-3.0, 0.0, 2.5])
def test_excess_is_the_mean_of_draws(sign: int, is_log: bool, bound: float) -> None:
    found = forecast(2, is_log=is_log, sign=sign).excess(torch.tensor([bound], dtype=torch.float64))[:, 0]
    for candidate, expected in zip(CANDIDATES, found.tolist(), strict=True):
        above = np.maximum(sign * draws(candidate, is_log=is_log)[1] - bound, 0)
        assert expected == pytest.approx(above.mean(), abs=4.5 * above.std() / np.sqrt(DRAWS) + 1e-7)


def trial(accuracy: float, latency_ms: float) -> FrozenTrial:
    return create_trial(values=[accuracy, latency_ms], params={}, distributions={})


@pytest.mark.parametrize(("form", "weight"), [("hard", -1.0), ("absolute", -0.1), ("soft", -0.07)])
def test_reward_improvement_is_the_mean_of_what_drawn_trials_are_worth(form: str, weight: float) -> None:
    objective = Objective(form=form, target_latency_ms=4.0, alpha=0.0 if form == "hard" else weight, beta=weight)
    seen = np.array([[0.0, 0.5], [1.0, 20.0]])
    table = tabulate(lambda t: objective.reward(t.values[0], t.values[1]), trial(0.5, 3.0), seen, seen[0], 1)
    accuracy, latency = forecast(0, is_log=False, sign=1), forecast(2, is_log=True, sign=-1)
    found, means = reward_improvement(accuracy, latency, table, 0.6), expected_reward(accuracy, latency, table)
    for i, candidate in enumerate(CANDIDATES):
        rewards = np.array([objective.reward(a, b) for a, b in zip(*draws(candidate, is_log=True), strict=True)])
        assert float(means[i]) == pytest.approx(rewards.mean(), abs=2e-3)
        assert float(found[i]) == pytest.approx(np.maximum(rewards - 0.6, 0).mean(), abs=6e-3)


def test_a_tabulated_reward_is_the_reward() -> None:
    objective = Objective(form="absolute", target_latency_ms=4.0, alpha=-0.1, beta=-0.1)
    asked = trial(0.5, 3.0)
    seen = np.array([[0.2, 1.0], [0.9, 20.0]])
    table = tabulate(lambda t: objective.reward(t.values[0], t.values[1]), asked, seen, seen[0], 1)
    accuracy, latency = np.random.default_rng(0).uniform([0.2, 1.0], [0.9, 20.0], (1000, 2)).T
    exact = [objective.reward(a, b) for a, b in zip(accuracy, latency, strict=True)]
    np.testing.assert_allclose(table(torch.tensor(accuracy), torch.tensor(latency)), exact, atol=5e-4)
    assert asked.values == [0.5, 3.0]
    assert isinstance(asked, optuna.trial.FrozenTrial)
