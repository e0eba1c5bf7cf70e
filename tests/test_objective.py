"""Rewards against numbers from the papers; front and hypervolume against brute force."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnas.objective import (
    DEFAULT_WEIGHTS,
    Objective,
    best_at_target,
    beta_for,
    hypervolume,
    pareto_front,
    why_not_at_target,
)


def objective(form, target_latency_ms=75.0, alpha=None, beta=None):
    default_alpha, default_beta = DEFAULT_WEIGHTS[form]
    return Objective(
        form=form,
        target_latency_ms=target_latency_ms,
        alpha=default_alpha if alpha is None else alpha,
        beta=default_beta if beta is None else beta,
    )


@pytest.mark.parametrize(
    ("form", "latency_ms", "expected"),
    [
        ("soft", 75.0, 0.7),
        ("soft", 150.0, 0.7 * 2**-0.07),
        ("soft", 37.5, 0.7 * 2**0.07),  # a latency below the target is still rewarded
        ("hard", 37.5, 0.7),
        ("hard", 75.0, 0.7),
        ("hard", 150.0, 0.35),
        ("absolute", 75.0, 0.7),
        ("absolute", 150.0, 0.6),
        ("absolute", 37.5, 0.65),  # here it is not: the target must be met
        ("target", 75.0, 0.7),
        ("target", 67.5, 0.69),
        ("target", 82.5, 0.6),
        ("weighted-sum", 75.0, 0.6),
        ("weighted-sum", 150.0, 0.5),
    ],
)
def test_values(form, latency_ms, expected):
    assert objective(form).reward(0.7, latency_ms) == pytest.approx(expected, abs=1e-12)


def test_paper_numbers():
    assert round(beta_for(0.05), 4) == -0.0704
    assert 1.05 * 2 ** beta_for(0.05) == pytest.approx(1.0, abs=1e-12)
    # section 3: M2 with twice the latency and 5 % more accuracy is worth as much as M1, to the rounding of -0.07
    soft = objective("soft")
    assert soft.reward(0.5 * 1.05, 150) / soft.reward(0.5, 75) == pytest.approx(1.0, abs=3e-4)
    # Table 1: MnasNet-A1 (75.2 %, 78 ms) is better than MobileNetV2 (72.0 %, 75 ms) at 75 ms
    assert soft.reward(0.752, 78) == pytest.approx(0.74994, abs=1e-5)
    assert soft.reward(0.752, 78) > soft.reward(0.720, 75) == 0.720


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=20), st.floats(0.01, 1), st.data())
def test_target_is_highest_at_t_wherever_accuracy_rises_by_less_and_less(steps, top, data):
    """Fronts of models whose accuracy rises from 0 or more, by steps that never grow."""
    steps.sort(reverse=True)
    rises = [0.0, *itertools.accumulate(steps)][1:]
    accuracies = [top * rise / rises[-1] for rise in rises]
    place = data.draw(st.integers(0, len(steps) - 1))
    wanted = objective("target", target_latency_ms=place + 1.0)
    rewards = [wanted.reward(accuracy, ms) for ms, accuracy in enumerate(accuracies, 1)]
    assert max(rewards) == pytest.approx(rewards[place], abs=1e-12)
    assert all(reward < rewards[place] for reward in rewards[:place])


def test_soft_is_highest_at_the_same_model_whatever_the_target():
    front = [(0.9 - 0.4 / (1 + ms), ms) for ms in range(1, 40)]
    best = {max(front, key=lambda m: objective("soft", target_ms).reward(*m)) for target_ms in (2.0, 8.0, 30.0)}
    assert len(best) == 1


def test_the_best_at_the_target_is_within_five_per_cent():
    points = [(0.9, 9.4), (0.8, 9.5), (0.81, 9.9), (0.7, 10.5), (0.99, 10.6)]
    assert best_at_target(points, objective("target", 10.0)) == 2
    assert best_at_target([points[0], points[-1]], objective("target", 10.0)) is None


def test_why_a_model_is_not_at_its_target():
    assert why_not_at_target(9.6, [5.0, 9.6, 20.0], 10.0) == ""
    assert "faster than the target because no more accurate" in why_not_at_target(9.0, [5.0, 9.0, 20.0], 10.0)
    assert (
        why_not_at_target(9.0, [5.0, 9.0, 10.4], 10.0) == ""
    )  # a more accurate model is at the target, but has a lower reward
    assert why_not_at_target(5.0, [5.0, 9.0, 20.0], 10.0) == ""  # a model lies between: the reward chose this one
    assert "slower than the target because no model as fast" in why_not_at_target(20.0, [20.0, 30.0], 10.0)
    assert why_not_at_target(20.0, [9.0, 20.0], 10.0) == ""


@pytest.mark.parametrize("form", DEFAULT_WEIGHTS)
def test_zero_weights_leave_accuracy_alone(form):
    single = objective(form, alpha=0.0, beta=0.0)
    assert [single.reward(0.61, ms) for ms in (1.0, 75.0, 1e4)] == [0.61] * 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"form": "cubic"}, "--reward must be one of target, soft, hard, absolute, weighted-sum, but got 'cubic'"),
        ({"target_latency_ms": 0.0}, "--target-latency-ms must be greater than 0, but got 0.0"),
        ({"target_latency_ms": -1.0}, "--target-latency-ms must be greater than 0, but got -1.0"),
        ({"target_latency_ms": math.nan}, "--target-latency-ms must be greater than 0, but got nan"),
        ({"target_latency_ms": math.inf}, "--target-latency-ms must be greater than 0, but got inf"),
        ({"alpha": 0.1}, "--alpha must be 0 or less, since slower is never better, but got 0.1"),
        ({"beta": math.nan}, "--beta must be 0 or less, since slower is never better, but got nan"),
    ],
)
def test_bad_fields(changed, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the whole message is compared below)
        Objective(**{"form": "soft", "target_latency_ms": 75.0, "alpha": -0.07, "beta": -0.07, **changed})
    assert str(error.value) == message


@pytest.mark.parametrize("bad", [0.0, -0.1, math.nan, math.inf])
def test_bad_gain(bad):
    with pytest.raises(ValueError, match="relative_accuracy_gain must be greater than 0"):
        beta_for(bad)


points = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12)


def dominates(p, q):
    return p[0] >= q[0] and p[1] <= q[1] and p != q


@given(points)
def test_front_against_brute_force(found):
    front = pareto_front(found)
    best = [p for p in found if not any(dominates(q, p) for q in found)]
    assert sorted(found[i] for i in front) == sorted(set(best))
    assert all(found.index(found[i]) == i for i in front)  # the first of equal points
    latencies = [found[i][1] for i in front]
    assert latencies == sorted(latencies)


@given(points, st.tuples(st.integers(0, 8), st.integers(0, 8)))
def test_hypervolume_against_counted_cells(found, reference):
    low, slowest = reference
    cells = itertools.product(range(low, 9), range(slowest))
    covered = sum(any(p[0] >= a + 1 and p[1] <= ms for p in found) for a, ms in cells)
    assert hypervolume(found, reference) == covered


def test_front_and_hypervolume_of_nothing():
    assert pareto_front([]) == []
    assert hypervolume([], (0.1, 50.0)) == 0
    assert hypervolume([(0.1, 20.0), (0.9, 50.0)], (0.1, 50.0)) == 0
    assert hypervolume([(0.5, 10.0)], (0.1, 50.0)) == pytest.approx(16.0)
