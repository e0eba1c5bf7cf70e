"""Several targets that share all trials, and targets outside the latency range of a space."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial
from test_search import facts, run_search
from toy import latency_of, measure, toy_problem

from mnas.candidate import Candidate
from mnas.controller.closed import ClosedBatches
from mnas.controller.evolution import RegularizedEvolutionSampler
from mnas.controller.view import view_of
from mnas.latency.fleet.fleet import Measured
from mnas.latency.latency import MeasurementError
from mnas.nn.cost import cost
from mnas.objective import hypervolume
from mnas.search.reach import Reach, extremes, find_reach
from mnas.shortlist.choose import choose
from mnas.space.named import SPACES
from mnas.study import DIRECTIONS, best_for, front_of

TARGETS_MS = (1.5, 1.1, 1.9)


def several(**changes):
    problem = toy_problem(**changes)
    others = tuple(dataclasses.replace(problem.objective, target_latency_ms=t) for t in TARGETS_MS[1:])
    return dataclasses.replace(problem, others=others)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run, _, _ = run_search(tmp_path_factory.mktemp("targets") / "run", several(), controller="evolution", trials=24)
    return run


def test_every_trial_has_a_reward_for_each_target(run):
    complete = [t for t in run.trials if t.state == "complete"]
    for t in complete:
        accuracy, latency_ms = t.point
        assert t.rewards == tuple(accuracy * (latency_ms / target_ms) ** -0.07 for target_ms in TARGETS_MS)
        assert t.reward == t.rewards[0]
    # trials over the limit of the largest target are skipped, and the hypervolume ends at twice that target
    slow = [t for t in run.trials if t.latency_ms > 1.2 * 1.9]
    assert slow == []
    points = [t.point for t in complete]
    assert run.attributes["update:3"]["hypervolume"] == hypervolume(points, (0.1, 3.8))


def test_one_target_keeps_no_list(tmp_path):
    run, _, _ = run_search(tmp_path / "run", trials=6)
    assert not any("rewards" in t.user_attrs for t in run.frozen)
    assert not any(t.rewards for t in run.trials)


def test_a_resumed_run_has_the_same_trials(tmp_path, run):
    for trials in (5, 13, 24):
        parts, _, _ = run_search(tmp_path / "run", several(), controller="evolution", trials=trials)
    assert facts(parts) == facts(run)


REWARDS = [lambda t, sign=sign: sign * t.values[0] for sign in (1.0, -1.0)]


def made_up(space, count, seed=0):
    """COMPLETE trials whose accuracy is the number of decisions that are `b`."""
    rng = np.random.default_rng(seed)
    trials = []
    for number in range(count):
        params = {name: str(rng.choice(["a", "b"])) for name in space}
        values = [sum(choice == "b" for choice in params.values()), 1.0]
        trials.append(create_trial(values=values, params=params, distributions=space))
        trials[-1].number = number
    return trials


def test_rewards_are_served_in_turns_and_learn_from_all_trials():
    """Each trial is drawn as if by a sampler with only its reward, which drew only half of the trials."""
    space = {f"d{i}": CategoricalDistribution(["a", "b"]) for i in range(10)}
    trials = made_up(space, 120)
    batches = ClosedBatches("evolution", space, directions=DIRECTIONS, seed=3, batch_size=20, reward=REWARDS)
    grown = list(trials)
    for number in range(120, 126):
        drawn = batches.draw(grown, number)
        alone = RegularizedEvolutionSampler(space, seed=3, batch_size=20, reward=REWARDS[number % 2])
        study = view_of(trials, DIRECTIONS)
        for _ in range(120, number):
            study.ask()
        study.sampler = alone
        assert drawn.params == study.ask(space).params
        grown.append(running(trials[0], number, drawn.params))
    wanted = [sum(choice == "b" for choice in t.params.values()) for t in grown[120:]]
    assert min(wanted[::2]) > 5 > max(wanted[1::2])  # children of the best of each


def running(trial, number, params):
    made = copy.copy(trial)
    made.number, made.params, made.state, made.values = number, dict(params), TrialState.RUNNING, None
    return made


@pytest.mark.parametrize("controller", ["ppo", "evolution"])
def test_diagnostics_of_several_are_their_means(controller):
    space = {f"d{i}": CategoricalDistribution(["a", "b"]) for i in range(4)}
    trials = made_up(space, 120)

    def diagnostics(reward):
        batches = ClosedBatches(controller, space, directions=DIRECTIONS, seed=3, batch_size=20, reward=reward)
        return batches.close(trials)

    both, one, other = diagnostics(REWARDS), diagnostics(REWARDS[0]), diagnostics(REWARDS[1])
    assert both.keys() == one.keys()
    assert both["trials"] == one["trials"]
    assert both["mean_reward"] == pytest.approx((one["mean_reward"] + other["mean_reward"]) / 2)
    for name, entropy in both["entropy_per_decision"].items():
        mean = (one["entropy_per_decision"][name] + other["entropy_per_decision"][name]) / 2
        assert entropy == pytest.approx(mean)
    assert diagnostics(REWARDS[:1]) == one  # a list of one reward counts as one reward


def test_the_shortlist_has_the_best_for_each_target_first(run):
    front = front_of(run.trials)
    best = [best_for(front, objective).number for objective in several().objectives]
    wanted = list(dict.fromkeys(best))
    assert choose(run.trials, 10)[: len(wanted)] == wanted


# The latency range of a space


def test_extremes_of_a_small_space_are_those_of_all_members():
    space = toy_problem(layers=(0, 1)).space.space
    archs = [space.decode(v) for v in itertools.product(*(range(len(d.choices)) for d in space.decisions))]
    macs = [cost(arch, 8, 10).macs for arch in archs]
    smallest, largest = extremes(space, 8, 10)
    assert cost(smallest, 8, 10).macs == min(macs)
    assert cost(largest, 8, 10).macs == max(macs)
    assert {layer.skip for layer in smallest.layers} == {"none"}  # the fastest of equals


def test_extremes_of_the_papers_space():
    smallest, largest = extremes(SPACES["mnasnet"], 224, 1000)
    assert [b.op for b in smallest.blocks] == ["sepconv"] * 7
    assert [(b.kernel, b.se_ratio, b.skip) for b in smallest.blocks] == [(3, 0.0, "none")] * 7
    assert [b.filters for b in smallest.blocks] == [12, 20, 24, 48, 72, 120, 240]
    assert [b.layers for b in smallest.blocks] == [1, 1, 2, 3, 2, 2, 1]
    assert [(b.op, b.kernel, b.skip) for b in largest.blocks] == [("conv", 5, "pool")] * 7
    assert [b.filters for b in largest.blocks] == [20, 32, 40, 80, 120, 200, 400]
    assert [b.layers for b in largest.blocks] == [2, 3, 4, 5, 4, 4, 2]


def reach_of(**changes):
    return find_reach(toy_problem(**changes))


def test_a_target_outside_the_range_is_rejected_with_the_range():
    reach = reach_of()
    fastest, slowest = (latency_of(arch).latency_ms for arch in extremes(toy_problem().space.space, 8, 10))
    assert reach.smallest.latencies["host"].latency_ms == fastest
    assert reach.largest.latencies["host"].latency_ms == slowest
    low, high = reach.smallest.latencies["host"].low_ms, reach.largest.latencies["host"].high_ms
    reach.require("host", [low, high])  # within the ends' own intervals
    for target_ms in (low * 0.999, high * 1.001):
        with pytest.raises(
            ValueError, match=f"in the latency range of the space, but got {target_ms:g} ms; on host its"
        ):
            reach.require("host", [(low + high) / 2, target_ms])
    assert reach.text("host") == f"{fastest:.3g} ms ({low:.3g}-{fastest * 1.01:.3g}) to " + (
        f"{slowest:.3g} ms ({slowest * 0.99:.3g}-{high:.3g})"
    )


def test_the_range_is_predicted_where_the_search_predicts():
    def predict(arch):
        return {"host": dataclasses.replace(latency_of(arch), source="predicted", runs=0, rounds=0)}

    def never(archs):
        raise AssertionError

    reach = reach_of(predict=predict, measure=never)
    assert "predicted" in reach.text("host")


def test_a_largest_member_that_cannot_run_sets_no_upper_end():
    def fussy(archs):
        for number, measured in measure(archs):
            yield number, MeasurementError("out of memory") if number == 1 else measured

    reach = reach_of(measure=fussy)
    reach.require("host", [1e9])
    assert reach.text("host").endswith(" to too large to run")
    assert isinstance(reach, Reach)
    assert reach.to_dict()["largest"]["latencies"] == {}
    assert isinstance(next(measure({0: Candidate(arch=reach.smallest.arch, input_size=8)}))[1], Measured)
