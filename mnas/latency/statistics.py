"""A latency with its confidence interval, from rounds of times; pure, and the same for every device and runtime.

A *round* loads candidate and reference afresh and times them in turns. The estimate is the time of an undisturbed
inference. Other programs, interrupts and neighbours in the cache only ever add time. They add more to some models than
to others (a model whose weights miss the cache suffers more), so a mean or median describes the neighbours as much as
the model. Hence only the fastest time of each model in a round counts, and only the fastest few of each model's rounds.
The place of a model in memory remains random; it differs between rounds, so the rounds average it out.

The interval adds three squared errors: the standard error over the rounds that count (Student's t); the difference
between sessions, which no round can show; and how far the estimate would move if most rounds counted. The last is near
0 on a quiet machine; where neighbours never pause, it shows that the rounds may not have reached the floor.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnas.latency.latency import Against, Calibration, Latency, StoppedBy, UnitError

MIN_ROUNDS = 8
"""Minimum number of rounds; fewer give no useful interval."""
SETTLED_ROUNDS = 16
"""Number of rounds below which a narrow interval is not trusted, as fewer cannot show whether they were disturbed."""
KEPT_SHARE, KEPT_ROUNDS = 0.15, 8
"""Share of the rounds, fastest first, that count, and the minimum number of them."""
COMPARED_SHARE, COMPARED_WEIGHT = 0.75, 1.5
"""Share of the rounds that the estimate is compared with, and the weight of the difference in the interval."""
SESSION_ERROR = 0.004
"""Relative standard deviation between sessions, which the rounds of one session cannot show, on a device whose
repeatability was not measured."""
DISTURBED = 1.2
"""Factor over the fastest round above which a round counts as disturbed."""
# all of these were chosen by coverage and variation over sessions; see docs/measurements/latency.md


@dataclass(frozen=True)
class Round:
    """Times of single inferences of one round, in milliseconds; raises UnitError unless positive and finite."""

    candidate_ms: Sequence[float]
    reference_ms: Sequence[float]

    def __post_init__(self) -> None:
        for times in (self.candidate_ms, self.reference_ms):
            if len(times) == 0 or not all(math.isfinite(t) and t > 0 for t in times):
                raise UnitError(f"times must be positive and finite, but the device gave {list(times)}")


@dataclass(frozen=True)
class Estimate:
    """A positive value with its 95 % interval, which is symmetric in the logarithm."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Half of the interval's width as a share of the value: 0.01 is plus or minus 1 %."""
        return (self.high - self.low) / (2 * self.value)


def ratio_of(rounds: Sequence[Round], session_error: float = SESSION_ERROR) -> Estimate:
    """Return the time of the candidate over the time of the reference.

    Raises:
        ValueError: there are fewer than `MIN_ROUNDS` rounds.
    """
    candidate, reference = _floor([r.candidate_ms for r in rounds]), _floor([r.reference_ms for r in rounds])
    lift = abs(candidate.lift - reference.lift)
    return _estimate(candidate.mean - reference.mean, (candidate, reference), lift, session_error)


def time_of(rounds: Sequence[Sequence[float]], session_error: float = SESSION_ERROR) -> Estimate:
    """Return the milliseconds of an inference from the times of one model, by the same rule as `ratio_of`."""
    floor = _floor(rounds)
    return _estimate(floor.mean, (floor,), floor.lift, session_error)


def disturbed_share(rounds: Sequence[Round]) -> float:
    """Return the share of rounds where a model's fastest time was over `DISTURBED` times its fastest of all rounds."""
    fastest = [(min(r.candidate_ms), min(r.reference_ms)) for r in rounds]
    floors = [min(times) for times in zip(*fastest, strict=True)]
    return sum(any(t > DISTURBED * f for t, f in zip(r, floors, strict=True)) for r in fastest) / len(fastest)


def latency_of(
    rounds: Sequence[Round],
    calibration: Calibration,
    *,
    against: Against = "reference",
    raw_median_ms: float,
    runs: int,
    stopped_by: StoppedBy,
    seconds: float,
    peak_memory_bytes: int | None = None,
    energy_mj: float | None = None,
) -> Latency:
    """Return the record of a finished measurement."""
    ratio = ratio_of(rounds, calibration.session_error)
    share = calibration.light_ratio if against == "light" else 1
    level_ms = calibration.reference_ms * calibration.unit_scale * share
    drift = time_of([r.reference_ms for r in rounds]).value / level_ms - 1
    ratio, time_ms = on_scale(ratio, calibration, against)
    return Latency(
        latency_ms=time_ms.value,
        low_ms=time_ms.low,
        high_ms=time_ms.high,
        ratio=ratio.value,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        against=against,
        raw_median_ms=raw_median_ms,
        runs=runs,
        rounds=len(rounds),
        stopped_by=stopped_by,
        seconds=seconds,
        drift=drift,
        disturbed=disturbed_share(rounds),
        peak_memory_bytes=peak_memory_bytes,
        energy_mj=energy_mj,
        unit=calibration.unit,
        source="measured",
    )


def on_scale(turn: Estimate, calibration: Calibration, against: Against) -> tuple[Estimate, Estimate]:
    """Return the ratio to the reference and the milliseconds, from the ratio `turn` to the model of `against`.

    The errors of ratio and calibration are independent, and add up squared in the milliseconds' interval.
    """
    ratio = turn
    levels = [(calibration.low_ms, calibration.reference_ms, calibration.high_ms)]
    if against == "light":
        share = calibration.light_ratio
        levels.append((calibration.light_ratio_low, share, calibration.light_ratio_high))
        ratio = Estimate(ratio.value * share, ratio.low * share, ratio.high * share)
    time_ms = ratio.value * calibration.reference_ms
    below = math.hypot(math.log(ratio.value / ratio.low), *(math.log(value / low) for low, value, _ in levels))
    above = math.hypot(math.log(ratio.high / ratio.value), *(math.log(high / value) for _, value, high in levels))
    return ratio, Estimate(time_ms, time_ms * math.exp(-below), time_ms * math.exp(above))


def rescaled(latency: Latency, before: Calibration, now: Calibration) -> Latency:
    """Return the latency on the scale of `now` instead of `before`: its ratio times the reference's time there.

    Both calibrations must be of one device and reference. A measured latency becomes `cached`, as the run of `now` did
    not measure it.
    """
    share = before.light_ratio if latency.against == "light" else 1
    turn = Estimate(latency.ratio / share, latency.ratio_low / share, latency.ratio_high / share)
    return of_turn(latency, turn, now)


def of_turn(latency: Latency, turn: Estimate, calibration: Calibration) -> Latency:
    """Return `latency`, of an earlier run, with the milliseconds of its ratio `turn` under `calibration`."""
    ratio, time_ms = on_scale(turn, calibration, latency.against)
    return dataclasses.replace(
        latency,
        latency_ms=time_ms.value,
        low_ms=time_ms.low,
        high_ms=time_ms.high,
        ratio=ratio.value,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        seconds=0.0,
        source="predicted" if latency.source == "predicted" else "cached",
    )


def stop_reason(
    rounds: Sequence[Round],
    *,
    session_error: float = SESSION_ERROR,
    interval: float,
    seconds: float,
    next_round_s: float,
    budget_s: float,
) -> StoppedBy | None:
    """Return why measuring may stop, or None to continue.

    The reason is `interval` when the ratio's error is at most that share, and `budget` when another round of
    `next_round_s` would not fit into `budget_s` after `seconds` spent. Measuring never stops before `MIN_ROUNDS`,
    whatever they cost, and never for its interval before `SETTLED_ROUNDS`.
    """
    if len(rounds) < MIN_ROUNDS:
        return None
    if len(rounds) >= SETTLED_ROUNDS and ratio_of(rounds, session_error).error <= interval:
        return "interval"
    return "budget" if seconds + next_round_s > budget_s else None


@dataclass(frozen=True)
class _Floor:
    """Fastest times of one model's rounds, in logarithms."""

    mean: float
    """Mean over the rounds that count, the fastest."""
    error: float
    """Half of the mean's 95 % interval, from those rounds alone."""
    lift: float
    """Rise of the mean if most rounds counted."""


def _floor(rounds: Sequence[Sequence[float]]) -> _Floor:
    if len(rounds) < MIN_ROUNDS:
        raise ValueError(f"an estimate must have {MIN_ROUNDS} rounds or more, but got {len(rounds)}")
    logs = np.sort(np.log([min(times) for times in rounds]))
    fastest = logs[: max(KEPT_ROUNDS, round(len(logs) * KEPT_SHARE))]
    compared = logs[: max(KEPT_ROUNDS, round(len(logs) * COMPARED_SHARE))]
    mean = float(np.mean(fastest))
    error = _t95(len(fastest) - 1) * float(np.std(fastest, ddof=1)) / math.sqrt(len(fastest))
    return _Floor(mean, error, float(np.mean(compared)) - mean)


def _estimate(mean: float, floors: Sequence[_Floor], lift: float, session_error: float) -> Estimate:
    """Return the value of a mean of logarithms with its interval, in the values' own unit."""
    half = math.hypot(*(floor.error for floor in floors), COMPARED_WEIGHT * lift, _t95(10**6) * session_error)
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def _t95(degrees: int) -> float:
    """Return Student's t at 97.5 %, expanded in 1 / degrees (Abramowitz, Stegun 26.7.5): 0.4 % off at 7."""
    z = 1.959964
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
