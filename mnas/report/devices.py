"""The results of a run on each of its devices: the front on that device alone, and the cost of sharing one model."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from mnas.latency.latency import Latency
from mnas.objective import Objective, pareto_front
from mnas.report.facts import Facts, Result
from mnas.study import TrialRecord

DRIFTED = 0.10
"""Relative change of a reference's latency since its calibration above which the report shows a warning."""
DISTURBED = 0.5
"""Share of disturbed rounds in a measurement above which the report shows a warning."""


@dataclass(frozen=True, kw_only=True)
class View:
    """The candidates by one latency: a single device's, or the one that counts for all devices."""

    device: str
    """Name of the device; empty for all devices together."""
    targets_ms: tuple[float, ...]
    """T, or each of several, in milliseconds; empty before the run has one."""
    candidates: tuple[Result, ...]
    """Trials by number, then references."""
    front: tuple[Result, ...]
    """Pareto front, fastest first."""
    best: tuple[Result, ...]
    """Result with the highest reward by this latency for each T, without duplicates."""

    def latency(self, candidate: Result) -> Latency:
        """Return the candidate's latency in this view."""
        return candidate.latencies[self.device] if self.device else candidate.latency

    def of_reference(self, reference: TrialRecord) -> Latency:
        """Return the latency of a reference network in this view."""
        assert reference.latency is not None
        return reference.latencies[self.device] if self.device else reference.latency


def views(facts: Facts) -> list[View]:
    """Return the view of the latency that counts and, for several devices, of each device alone."""
    together = View(
        device="",
        targets_ms=tuple(facts.goals_ms),
        candidates=facts.results,
        front=facts.front,
        best=tuple(facts.chosen),
    )
    devices = list(facts.targets_ms) if len(facts.targets_ms) > 1 else []
    return [together, *(_alone(facts, device) for device in devices)]


def _alone(facts: Facts, device: str) -> View:
    best = best_alone(facts, device)
    places = [(c.accuracy, c.latencies[device].latency_ms) for c in facts.results]
    return View(
        device=device,
        targets_ms=(facts.targets_ms[device],),
        candidates=facts.results,
        front=tuple(facts.results[i] for i in pareto_front(places)),
        best=() if best is None else (best,),
    )


def best_alone(facts: Facts, device: str) -> Result | None:
    """Return the candidate with the highest reward where only `device` counts, the fastest among equals."""
    return max(
        facts.results,
        key=lambda c: (reward_alone(facts, device, c), -c.latencies[device].latency_ms),
        default=None,
    )


def reward_alone(facts: Facts, device: str, candidate: Result) -> float:
    """Return the reward of `candidate` where only `device` counts, with its own T."""
    objective = Objective(**facts.attributes["objective"])
    own = dataclasses.replace(objective, target_latency_ms=facts.targets_ms[device])
    return own.reward(candidate.accuracy, candidate.latencies[device].latency_ms)


@dataclass(frozen=True, kw_only=True)
class SharingCost:
    """The cost for one device of using the model that all devices share."""

    device: str
    target_ms: float
    alone: Result
    """The best candidate of this search for the device alone; a search for that device only might find a better one."""
    alone_reward: float
    shared: Result
    """The best candidate for all devices together."""
    shared_reward: float
    """Reward of the shared model by this device's latency and T."""

    @property
    def alone_latency(self) -> Latency:
        return self.alone.latencies[self.device]

    @property
    def shared_latency(self) -> Latency:
        return self.shared.latencies[self.device]

    @property
    def reward_lost(self) -> float:
        """Lost reward, at least 0; 0 where both are the same model."""
        return self.alone_reward - self.shared_reward


def sharing_costs(facts: Facts) -> list[SharingCost]:
    """Return the cost for each device; empty with a single device or before a candidate is trained."""
    shared = facts.best
    if len(facts.targets_ms) < 2 or shared is None or not facts.candidates:
        return []
    costs = []
    for device, target_ms in facts.targets_ms.items():
        alone = best_alone(facts, device)
        assert alone is not None
        costs.append(
            SharingCost(
                device=device,
                target_ms=target_ms,
                alone=alone,
                alone_reward=reward_alone(facts, device, alone),
                shared=shared,
                shared_reward=reward_alone(facts, device, shared),
            )
        )
    return costs


def warnings(latency: Latency) -> list[str]:
    """Return warnings about the measurement of a latency; usually empty."""
    lines = []
    if abs(latency.drift) > DRIFTED:
        lines.append(
            f"the device was {abs(latency.drift):.0%} {'slower' if latency.drift > 0 else 'faster'} "
            "than at its calibration"
        )
    if latency.disturbed > DISTURBED:
        lines.append(f"{latency.disturbed:.0%} of the rounds were disturbed")
    return lines


def counted(latencies: Sequence[Latency]) -> str:
    """Return `31 measured, 4 cached, 25 predicted`, with warnings."""
    counts = {
        "measured": sum(x.source == "measured" for x in latencies),
        "cached": sum(x.source == "cached" for x in latencies),
        "predicted": sum(x.source == "predicted" for x in latencies),
        f"over {DRIFTED:.0%} off the calibration": sum(abs(x.drift) > DRIFTED for x in latencies),
        "in disturbed rounds": sum(x.disturbed > DISTURBED for x in latencies),
    }
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)
