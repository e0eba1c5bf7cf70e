"""From rounds of times to a latency with an honest interval; pure, and the same for every device and runtime.

A *round* loads candidate and reference afresh and times them in turns. What is estimated is the time of an undisturbed
inference: other programs, interrupts and neighbours in the cache only ever add time, and they add it to models in
unequal parts (one whose weights miss the cache suffers more), so a mean or median says as much about the neighbours
as about the model. Hence the fastest time of each model in a round, and of the rounds the faster half. What is left to
chance is where a model's memory came to lie; that differs between rounds and is averaged over them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnas.latency.latency import Calibration, Latency, MeasurementError, StoppedBy

MIN_ROUNDS = 8
"""Fewer give no interval worth the name."""
KEPT_SHARE = 0.5
"""Share of the rounds, fastest first, that count (benchmarks/latency_stability.py)."""
SESSION_ERROR = 0.004
"""Standard deviation, relative, of what all rounds of one session share and none can show; from the same benchmark."""


@dataclass(frozen=True)
class Round:
    """Times of single inferences of one round, in milliseconds; raises MeasurementError unless positive and finite."""

    candidate_ms: Sequence[float]
    reference_ms: Sequence[float]

    def __post_init__(self) -> None:
        for times in (self.candidate_ms, self.reference_ms):
            if len(times) == 0 or not all(math.isfinite(t) and t > 0 for t in times):
                raise MeasurementError(f"times must be positive and finite, but the device gave {list(times)}")


@dataclass(frozen=True)
class Estimate:
    """A positive value with its 95 % interval, which is symmetric in the logarithm."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Half the interval's width as a share of the value: 0.01 is plus or minus 1 %."""
        return (self.high - self.low) / (2 * self.value)


def ratio_of(rounds: Sequence[Round]) -> Estimate:
    """Time of the candidate over time of the reference.

    Raises:
        ValueError: there are fewer than `MIN_ROUNDS` rounds.
    """
    candidate, reference = _floors([r.candidate_ms for r in rounds]), _floors([r.reference_ms for r in rounds])
    # by both models' times, so that what is kept does not lean towards small or large ratios
    return _log_mean((candidate - reference)[_fastest(candidate + reference)])


def time_of(rounds: Sequence[Sequence[float]]) -> Estimate:
    """Milliseconds of an inference from the times of one model, by the same rule as `ratio_of`."""
    floors = _floors(rounds)
    return _log_mean(floors[_fastest(floors)])


def latency_of(
    rounds: Sequence[Round],
    calibration: Calibration,
    *,
    raw_median_ms: float,
    runs: int,
    stopped_by: StoppedBy,
    seconds: float,
) -> Latency:
    """The record of a finished measurement; the errors of ratio and calibration are independent and add up squared."""
    ratio = ratio_of(rounds)
    latency_ms = ratio.value * calibration.reference_ms
    below = math.hypot(math.log(ratio.value / ratio.low), math.log(calibration.reference_ms / calibration.low_ms))
    above = math.hypot(math.log(ratio.high / ratio.value), math.log(calibration.high_ms / calibration.reference_ms))
    return Latency(
        latency_ms=latency_ms,
        low_ms=latency_ms * math.exp(-below),
        high_ms=latency_ms * math.exp(above),
        ratio=ratio.value,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        raw_median_ms=raw_median_ms,
        runs=runs,
        rounds=len(rounds),
        stopped_by=stopped_by,
        seconds=seconds,
    )


def stop_reason(
    rounds: Sequence[Round], *, interval: float, seconds: float, next_round_s: float, budget_s: float
) -> StoppedBy | None:
    """Whether measuring is done, and why.

    `interval` when the ratio's error is at most that share; `budget` when another round of `next_round_s` would not fit
    into `budget_s` after `seconds` spent; None to go on. Never before `MIN_ROUNDS`, whatever they cost.
    """
    if len(rounds) < MIN_ROUNDS:
        return None
    if ratio_of(rounds).error <= interval:
        return "interval"
    return "budget" if seconds + next_round_s > budget_s else None


def _floors(rounds: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Logarithm of the fastest time of each round."""
    if len(rounds) < MIN_ROUNDS:
        raise ValueError(f"an estimate must have {MIN_ROUNDS} rounds or more, but got {len(rounds)}")
    return np.log([min(times) for times in rounds])


def _fastest(total: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices, in time order, of the `KEPT_SHARE` of rounds with the smallest total."""
    return np.sort(np.argsort(total, kind="stable")[: max(MIN_ROUNDS // 2, round(len(total) * KEPT_SHARE))])


def _log_mean(logs: NDArray[np.float64]) -> Estimate:
    """Mean of logarithms with a 95 % interval, back in the values' own unit."""
    n = len(logs)
    variance = float(np.var(logs, ddof=1)) / n
    half = math.hypot(_t95(n - 1) * math.sqrt(variance), _t95(10**6) * SESSION_ERROR)
    mean = float(np.mean(logs))
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def _t95(degrees: int) -> float:
    """97.5 % quantile of Student's t, by its expansion in 1 / degrees (Abramowitz and Stegun 26.7.5): 3 % off at 3."""
    z = 1.959964
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
