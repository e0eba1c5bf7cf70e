"""Choose the trials of a run for full training: the best by reward, spread along the Pareto front.

Tan et al., MnasNet (CVPR 2019), section 4.2: the 15 best by reward of a search are trained in full, and the final model
is picked among those. Departure: the reward alone prefers a single latency, and fifteen near-twins say little about the
rest of the front. So the range of latencies is halved repeatedly, and the best by reward of each part is taken.
"""

import bisect
import math
from collections.abc import Sequence

from mnas.evaluate.evaluation import accuracy_noise
from mnas.study import TrialRecord, front_of

NEAR = 0.01
"""Tolerance in accuracy, one percentage point: trainings of one network with different seeds differ by as much, on any
number of images."""

FINEST = 0.01
"""Relative difference below which latencies count as equal (they are measured to about 1 %)."""


def choose(trials: Sequence[TrialRecord], top: int) -> list[int]:
    """Return the numbers of the `top` trials to train in full, in the order of training; fewer if the run has fewer.

    1. A network counts once, by its first complete trial.
    2. The best by reward comes first; in a search with several targets the best for each, in their order.
    3. Next come trials whose proxy accuracy chance may put below the front's at their latency. The latencies are cut
       into 2, 4, 8, ... parts of equal ratio, and every part without a choice gives its best by reward (the better
       parts first), until the parts are as narrow as the precision of latency.
    4. The others follow by reward; those near the front come before the rest.

    The choice is nested: the first 5 of 15 are those that `top` = 5 gives, so that a larger `top` wastes no training.

    Raises:
        ValueError: `top` is below 1.
    """
    if top < 1:
        raise ValueError(f"--top must be 1 or more, but got {top}")
    networks = _distinct(trials)
    if not networks:
        return []
    networks.sort(key=lambda t: (-_reward(t), t.point[1], t.number))
    front = front_of(networks)
    near = [t for t in networks if t is networks[0] or _is_near(t, front)]
    logs = [math.log(t.point[1]) for t in near]
    fastest, span = min(logs), max(logs) - min(logs)
    places = [(value - fastest) / span if span else 0.0 for value in logs]  # position 0..1 along the front
    order = dict.fromkeys(_best_for_each_target(front))  # an ordered set
    parts = 1
    while len(order) < min(top, len(near)) and (parts == 1 or span / parts > FINEST):
        part_of = {t.number: min(int(place * parts), parts - 1) for t, place in zip(near, places, strict=True)}
        served = {part_of[number] for number in order}
        for trial in near:
            if part_of[trial.number] not in served:
                served.add(part_of[trial.number])
                order[trial.number] = None
        parts *= 2
    order |= dict.fromkeys(t.number for t in [*near, *networks])
    return list(order)[:top]


def _best_for_each_target(front: Sequence[TrialRecord]) -> list[int]:
    """Return the best trial for each of several targets; empty for one target, whose best comes first anyway."""
    targets = len(front[0].rewards)
    return [max(front, key=lambda t: t.rewards[target]).number for target in range(targets)]


def _reward(trial: TrialRecord) -> float:
    assert trial.reward is not None
    return trial.reward


def _distinct(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the first complete trial of every network."""
    first: dict[str, TrialRecord] = {}
    for trial in trials:
        if trial.state == "complete":
            first.setdefault(trial.identity, trial)
    return list(first.values())


def _is_near(trial: TrialRecord, front: Sequence[TrialRecord]) -> bool:
    """Return whether chance may explain the gap between the trial's accuracy and the front's at its latency."""
    accuracy, latency_ms = trial.point
    faster = bisect.bisect_right(front, latency_ms, key=lambda t: t.point[1])
    best = front[faster - 1].point[0]  # the front has a member that is no slower than any trial
    assert trial.evaluation is not None
    return best - accuracy < max(accuracy_noise(best, trial.evaluation.val_images), NEAR)
