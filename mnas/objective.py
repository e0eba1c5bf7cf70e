"""The objective of a search, a reward from accuracy and latency; Pareto front and hypervolume of its trials.

Tan et al., MnasNet (CVPR 2019), section 3: ACC(m) * (LAT(m)/T)^w, w = alpha where LAT(m) <= T, else beta. `absolute` is
the reward of TuNAS (Bender et al., CVPR 2020, arXiv:2008.06120): ACC(m) + beta * |LAT(m)/T - 1|. `target` is ours:
`absolute` with one slope below T and another above it. docs/explanation/reward.md shows the maximum of each.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Form = Literal["target", "soft", "hard", "absolute", "weighted-sum"]

DEFAULT_WEIGHTS: dict[str, tuple[float, float]] = {
    # Ours: alpha is TuNAS's. If accuracy is a concave function of latency and at least 0, its slope at T is at most
    # accuracy / T. With beta = -1, no model beyond T is therefore worth its latency.
    "target": (-0.10, -1.0),
    "soft": (-0.07, -0.07),  # paper, section 3: doubling the latency buys 5 % relative accuracy
    "hard": (0.0, -1.0),  # paper, section 3
    "absolute": (-0.10, -0.10),  # TuNAS, section 3
    "weighted-sum": (-0.10, -0.10),  # ours: twice the target costs ten points of accuracy, as with `absolute`
}
"""Form -> default (alpha, beta)."""

AT_TARGET = 0.05
"""Tolerance of a latency target, as a share of the target: a model within it is at its target."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Reward as a function of accuracy and latency. Raises ValueError if a field is out of range."""

    form: Form
    """Formula of the reward. `soft`, `hard` and `absolute` are those of the papers. `target` is `absolute` with a
    steeper penalty above T. `weighted-sum` is ACC + w * LAT/T, the alternative in the paper's footnote."""
    target_latency_ms: float
    """Target latency T, in milliseconds."""
    alpha: float
    """Exponent or weight w up to the target. With alpha = beta = 0, accuracy is the only objective."""
    beta: float
    """Exponent or weight w beyond the target."""

    def __post_init__(self) -> None:
        if self.form not in DEFAULT_WEIGHTS:
            raise ValueError(f"--reward must be one of {', '.join(DEFAULT_WEIGHTS)}, but got {self.form!r}")
        if not (math.isfinite(self.target_latency_ms) and self.target_latency_ms > 0):
            raise ValueError(f"--target-latency-ms must be greater than 0, but got {self.target_latency_ms!r}")
        for name, weight in (("alpha", self.alpha), ("beta", self.beta)):
            if not (math.isfinite(weight) and weight <= 0):
                raise ValueError(f"--{name} must be 0 or less, since slower is never better, but got {weight!r}")

    def reward(self, accuracy: float, latency_ms: float) -> float:
        """Return the reward of a network with `accuracy` in [0, 1] and `latency_ms` > 0; more is better."""
        ratio = latency_ms / self.target_latency_ms
        weight = self.alpha if ratio <= 1 else self.beta
        if self.form in ("absolute", "target"):
            return accuracy + weight * abs(ratio - 1)
        if self.form == "weighted-sum":
            return accuracy + weight * ratio
        return accuracy * math.pow(ratio, weight)


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """The latencies of one model on several devices as one number, in milliseconds of the first device.

    Each device's latency counts as a multiple of its own target. Without weights the worst multiple decides; with
    weights their weighted mean does. Raises ValueError if a field is out of range.
    """

    targets_ms: Mapping[str, float]
    """Device -> T in milliseconds; the first device's is the objective's T."""
    weights: Mapping[str, float]
    """Device -> weight; empty: the worst multiple decides."""

    def __post_init__(self) -> None:
        for name, target_ms in self.targets_ms.items():
            if not (math.isfinite(target_ms) and target_ms > 0):
                raise ValueError(f"--target-latency-ms must be greater than 0 on {name}, but got {target_ms!r}")
        if self.weights and set(self.weights) != set(self.targets_ms):
            devices = ", ".join(self.targets_ms)
            raise ValueError(f"--device-weights must weight each of {devices}, but got {', '.join(self.weights)}")
        if not all(math.isfinite(w) and w > 0 for w in self.weights.values()):
            got = ",".join(f"{name}={weight:g}" for name, weight in self.weights.items())
            raise ValueError(f"--device-weights must be greater than 0, but got {got}")

    def latency_ms(self, latencies_ms: Mapping[str, float]) -> float:
        """Return the combined latency of a model with `latencies_ms` (device -> milliseconds)."""
        if len(self.targets_ms) == 1:
            return next(iter(latencies_ms.values()))
        multiples = {name: latencies_ms[name] / target_ms for name, target_ms in self.targets_ms.items()}
        if self.weights:
            multiple = sum(self.weights[n] * m for n, m in multiples.items()) / sum(self.weights.values())
        else:
            multiple = max(multiples.values())
        return multiple * next(iter(self.targets_ms.values()))


def beta_for(relative_accuracy_gain: float) -> float:
    """Return the soft reward's exponent at which twice the latency is worth `relative_accuracy_gain`.

    It solves (1 + gain) * 2^beta = 1; 0.05 gives the paper's -0.07. Raises ValueError unless the gain is above 0.
    """
    if not (math.isfinite(relative_accuracy_gain) and relative_accuracy_gain > 0):
        raise ValueError(f"relative_accuracy_gain must be greater than 0, but got {relative_accuracy_gain!r}")
    return -math.log2(1 + relative_accuracy_gain)


def why_not_at_target(latency_ms: float, front_ms: Sequence[float], target_ms: float) -> str:
    """Return why the chosen model is not at the target, given the latencies of the front it was chosen from.

    The result is a sentence without its full stop. It is empty if the model is at the target, or if the reward prefers
    it to models nearer the target.
    """
    if latency_ms < (1 - AT_TARGET) * target_ms:
        if not any(latency_ms < other_ms <= (1 + AT_TARGET) * target_ms for other_ms in front_ms):
            return "it is faster than the target because no more accurate model was found between it and the target"
    elif latency_ms > (1 + AT_TARGET) * target_ms and not any(other_ms <= target_ms for other_ms in front_ms):
        return "it is slower than the target because no model as fast was found (more trials may find one)"
    return ""


def best_at_target(points: Sequence[tuple[float, float]], objective: Objective) -> int | None:
    """Return the index of the (accuracy, latency_ms) point with the highest reward at the target, or None."""
    near = [i for i, p in enumerate(points) if abs(p[1] / objective.target_latency_ms - 1) <= AT_TARGET]
    return max(near, key=lambda i: objective.reward(*points[i]), default=None)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the (accuracy, latency_ms) points that no other dominates, fastest first.

    Only the first of equal points is included.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0], i))
    front: list[int] = []
    for i in order:
        if not front or points[i][0] > points[front[-1]][0]:
            front.append(i)
    return front


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Return the area between the front of (accuracy, latency_ms) `points` and `reference`; 0 if no point is better."""
    low_accuracy, slowest_ms = reference
    inside = [p for p in points if p[0] > low_accuracy and p[1] < slowest_ms]
    front = [inside[i] for i in pareto_front(inside)]
    if not front:
        return 0.0
    ends = [latency for _, latency in front[1:]] + [slowest_ms]
    return sum(
        (accuracy - low_accuracy) * (end - latency) for (accuracy, latency), end in zip(front, ends, strict=True)
    )
