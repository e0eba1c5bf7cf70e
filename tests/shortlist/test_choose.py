"""The shortlist: the best by reward, spread along the front."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import latency_of, toy_evaluation

from mnas.objective import Objective
from mnas.shortlist.choose import choose
from mnas.study import TrialRecord
from mnas.zoo.architectures import named_arch

OBJECTIVE = Objective(form="soft", target_latency_ms=4.0, alpha=-0.07, beta=-0.07)


def trial(
    number: int, accuracy: float, latency_ms: float, fingerprint: str = "", *, failed: bool = False, images: int = 1000
) -> TrialRecord:
    """Return a trial of a different network each time, unless the fingerprint is given."""
    arch = named_arch("mnasnet-a1")
    latency = dataclasses.replace(latency_of(arch), low_ms=latency_ms, latency_ms=latency_ms, high_ms=latency_ms)
    return TrialRecord(
        number=number, state="failed" if failed else "complete", arch=arch, params=1, macs=1, size_bytes=1, seed=0,
        input_size=32,
        fingerprint=fingerprint or f"network {number}", accuracy=None if failed else accuracy, latency=latency,
        latencies={"host": latency}, evaluation=toy_evaluation(accuracy, images),
        reward=OBJECTIVE.reward(accuracy, latency_ms),
    )  # fmt: skip


FRONT = [trial(0, 0.6, 1.0), trial(1, 0.7, 2.2), trial(2, 0.8, 4.4), trial(3, 0.9, 8.8), trial(4, 0.95, 16.0)]
"""Rewards .661, .730, .795, .852, .862; 0, .28, .53, .78 and 1 of the way from the fastest to the slowest."""


def test_the_best_first_then_halves_then_quarters():
    # 4 is the best overall, 1 in the faster half, 2 and 0 in quarters (by reward), 3 in eighths
    assert choose(FRONT, 5) == [4, 1, 2, 0, 3]
    assert choose(FRONT, 3) == [4, 1, 2]
    assert choose(FRONT, 100) == [4, 1, 2, 0, 3]
    assert choose(list(reversed(FRONT)), 5) == [4, 1, 2, 0, 3]


def test_near_twins_of_the_best_come_after_the_rest_of_the_front():
    twins = [trial(10 + i, 0.95 - 0.001 * i, 16.0 - 0.001 * i) for i in range(1, 20)]
    assert min(t.reward for t in twins[:9]) > FRONT[3].reward
    assert choose([*FRONT, *twins], 5) == [4, 1, 2, 0, 3]
    assert choose([*FRONT, *twins], 7) == [4, 1, 2, 0, 3, 11, 12]  # latencies within 1 % count as equal


def test_what_is_far_below_the_front_comes_last():
    # alone at its latency, but 20 points worse than a faster one; 9 is within the noise of 1000 images
    assert choose([*FRONT, trial(8, 0.6, 3.0), trial(9, 0.69, 3.1)], 7) == [4, 1, 2, 0, 3, 9, 8]
    # even with a million images, another seed of a short training differs by as much
    exact = [trial(t.number, *t.point, images=10**6) for t in FRONT]
    assert choose([*exact, trial(9, 0.784, 6.0, images=10**6), trial(8, 0.692, 3.0, images=10**6)], 7) == [
        4,
        1,
        2,
        0,
        3,
        8,
        9,
    ]
    assert choose([*FRONT, trial(9, 0.784, 6.0), trial(8, 0.692, 3.0)], 7) == [4, 1, 2, 0, 3, 9, 8]


def test_a_network_counts_once_and_failures_do_not():
    trials = [trial(0, 0.8, 4.0, "same"), trial(1, 0.9, 4.0, failed=True), trial(2, 0.8, 4.0, "same")]
    assert choose(trials, 3) == [0]
    assert choose([], 3) == choose(trials[1:2], 3) == []


def test_top_of_none_is_refused():
    with pytest.raises(ValueError, match="--top must be 1 or more, but got 0"):
        choose(FRONT, 0)


def test_the_best_by_reward_leads_even_where_it_is_dominated():
    # like the absolute reward, which penalises networks faster than the target
    slow = dataclasses.replace(trial(0, 0.5, 4.0), reward=2.0)
    assert choose([trial(1, 0.9, 1.0), slow], 2) == [0, 1]


@st.composite
def runs(draw):
    """Return trials on a coarse grid, with ties, twins and failures."""
    networks = draw(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 30)), min_size=1, max_size=12))
    order = draw(st.lists(st.integers(0, len(networks) - 1), min_size=1, max_size=30))
    failed = draw(st.sets(st.integers(0, 29)))
    return [
        trial(i, networks[k][0] / 20, networks[k][1] / 5, f"network {k}", failed=i in failed, images=10_000)
        for i, k in enumerate(order)
    ]


@given(runs(), st.integers(1, 20))
def test_properties(trials, top):
    chosen = choose(trials, top)
    complete = {t.number: t for t in trials if t.state == "complete"}
    fingerprints = {t.fingerprint for t in complete.values()}
    assert len(chosen) == len(set(chosen)) == min(top, len(fingerprints))
    assert len({complete[n].fingerprint for n in chosen}) == len(chosen)
    assert all(min(n for n in complete if complete[n].fingerprint == f) in chosen or len(chosen) == top
               for f in fingerprints)  # fmt: skip
    if chosen:
        best = max(t.reward for t in complete.values())
        assert complete[chosen[0]].reward == best
    assert choose(trials, top + 1)[: len(chosen)] == chosen  # a larger top repeats no training


@given(st.lists(st.integers(100, 1600).map(lambda n: n / 100), min_size=2, max_size=20, unique=True))
def test_every_part_of_the_front_has_its_best_by_reward(latencies):
    # accuracy that rises by 10 % with every doubling: all on the front, the slower the better the reward
    trials = [trial(i, 0.5 * ms**0.14, ms) for i, ms in enumerate(sorted(latencies))]
    fastest, span = math.log(min(latencies)), math.log(max(latencies)) - math.log(min(latencies))
    for parts in (1, 2, 4, 8):
        if span / parts <= 0.01:
            break
        best = {}  # part -> its slowest
        for t in trials:
            best[min(int((math.log(t.latency_ms) - fastest) / span * parts), parts - 1)] = t.number
        assert set(choose(trials, len(best))) == set(best.values())
