"""A run as each of its devices sees it: the front on that device alone, and what sharing one model costs it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from mnas.latency.latency import Latency
from mnas.objective import Objective, pareto_front
from mnas.report.facts import Candidate, Facts
from mnas.study import TrialRecord

DRIFTED = 0.10
"""A reference that took so much more or less than at its calibration is worth a word."""
DISTURBED = 0.5
"""So is a measurement of whose rounds more than this share was disturbed."""


@dataclass(frozen=True, kw_only=True)
class View:
    """The candidates by one latency: a device's own, or the one that counts for all of them together."""

    device: str
    """Empty: the devices together."""
    targets_ms: tuple[float, ...]
    """T, or each of several; empty before the run has one."""
    candidates: tuple[Candidate, ...]
    """Trials by number, then references."""
    front: tuple[Candidate, ...]
    """Fastest first."""
    best: tuple[Candidate, ...]
    """The highest reward by this latency and T; for each T, every one once."""

    def latency(self, candidate: Candidate) -> Latency:
        """The one that this view is about."""
        return candidate.latencies[self.device] if self.device else candidate.latency

    def of_reference(self, reference: TrialRecord) -> Latency:
        """The same of a reference model."""
        assert reference.latency is not None
        return reference.latencies[self.device] if self.device else reference.latency


def views(facts: Facts) -> list[View]:
    """What counts in this run, and where there are several devices each of them alone."""
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


def best_alone(facts: Facts, device: str) -> Candidate | None:
    """The candidate with the highest reward where `device` alone counts, with its own T; the fastest of equals."""
    return max(
        facts.results,
        key=lambda c: (reward_alone(facts, device, c), -c.latencies[device].latency_ms),
        default=None,
    )


def reward_alone(facts: Facts, device: str, candidate: Candidate) -> float:
    """The reward of `candidate` where `device` alone counts, with its own T."""
    objective = Objective(**facts.attributes["objective"])
    own = dataclasses.replace(objective, target_latency_ms=facts.targets_ms[device])
    return own.reward(candidate.accuracy, candidate.latencies[device].latency_ms)


@dataclass(frozen=True, kw_only=True)
class SharingCost:
    """What one device loses by taking the model that all of them share."""

    device: str
    target_ms: float
    alone: Candidate
    """The best for it alone, of this search: one for that device alone might have found a better one."""
    alone_reward: float
    shared: Candidate
    """The best for all of them together."""
    shared_reward: float
    """Of the shared one by this device's latency and T."""

    @property
    def alone_latency(self) -> Latency:
        return self.alone.latencies[self.device]

    @property
    def shared_latency(self) -> Latency:
        return self.shared.latencies[self.device]

    @property
    def reward_lost(self) -> float:
        """0 where both are the same model; never below."""
        return self.alone_reward - self.shared_reward


def sharing_costs(facts: Facts) -> list[SharingCost]:
    """Of each device; empty unless there are several and something is trained."""
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
    """What was odd while a latency was measured; empty as a rule."""
    lines = []
    if abs(latency.drift) > DRIFTED:
        lines.append(
            f"the device was {abs(latency.drift):.0%} {'slower' if latency.drift > 0 else 'faster'} than calibrated"
        )
    if latency.disturbed > DISTURBED:
        lines.append(f"{latency.disturbed:.0%} of the rounds were disturbed")
    return lines


def counted(latencies: Sequence[Latency]) -> str:
    """`31 measured, 4 cached, 25 predicted`, with what was odd about them."""
    counts = {
        "measured": sum(x.source == "measured" for x in latencies),
        "cached": sum(x.source == "cached" for x in latencies),
        "predicted": sum(x.source == "predicted" for x in latencies),
        f"with the device over {DRIFTED:.0%} off its calibration": sum(abs(x.drift) > DRIFTED for x in latencies),
        "in disturbed rounds": sum(x.disturbed > DISTURBED for x in latencies),
    }
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)
