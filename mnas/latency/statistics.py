"""From rounds of times to a latency with an honest interval; pure, and the same for every device and runtime.

A *round* loads candidate and reference afresh and times them in turns. What is estimated is the time of an undisturbed
inference: other programs, interrupts and neighbours in the cache only ever add time, and they add it to models in
unequal parts (one whose weights miss the cache suffers more), so a mean or median says as much about the neighbours
as about the model. Hence the fastest time of each model in a round, and of each model's rounds only the fastest few.
What is left to chance is where a model's memory came to lie; that differs between rounds and is averaged over them.

The interval adds up, squared: the standard error over the rounds kept (Student's t); what sessions differ by and no
round can show; and how far the estimate would move if most rounds were kept. The last is nothing on a quiet machine,
and where neighbours never let go it says that the floor may not have been reached.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnas.latency.latency import Against, Calibration, Latency, StoppedBy, UnitError

MIN_ROUNDS = 8
"""Fewer give no interval worth the name."""
SETTLED_ROUNDS = 16
"""Fewer cannot show whether rounds were disturbed, so an interval is not believed to be narrow."""
KEPT_SHARE, KEPT_ROUNDS = 0.15, 8
"""Of the rounds, fastest first, that share counts, but never fewer than that number."""
COMPARED_SHARE, COMPARED_WEIGHT = 0.75, 1.5
"""The share of rounds that the estimate is compared with, and what a difference adds to the interval."""
SESSION_ERROR = 0.004
"""Standard deviation, relative, of what all rounds of one session share and none can show, on a device whose own is
not known."""
DISTURBED = 1.2
"""A round so many times slower than the fastest had company."""
# all of these: chosen by coverage and variation over sessions, see docs/latency.md


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
        """Half the interval's width as a share of the value: 0.01 is plus or minus 1 %."""
        return (self.high - self.low) / (2 * self.value)


def ratio_of(rounds: Sequence[Round], session_error: float = SESSION_ERROR) -> Estimate:
    """Time of the candidate over time of the reference.

    Raises:
        ValueError: there are fewer than `MIN_ROUNDS` rounds.
    """
    candidate, reference = _floor([r.candidate_ms for r in rounds]), _floor([r.reference_ms for r in rounds])
    lift = abs(candidate.lift - reference.lift)
    return _estimate(candidate.mean - reference.mean, (candidate, reference), lift, session_error)


def time_of(rounds: Sequence[Sequence[float]], session_error: float = SESSION_ERROR) -> Estimate:
    """Milliseconds of an inference from the times of one model, by the same rule as `ratio_of`."""
    floor = _floor(rounds)
    return _estimate(floor.mean, (floor,), floor.lift, session_error)


def disturbed_share(rounds: Sequence[Round]) -> float:
    """Share of the rounds in which a model's fastest time was over `DISTURBED` times its fastest of all rounds."""
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
    """The record of a finished measurement."""
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
    """Ratio to the reference, and milliseconds, from the ratio `turn` to what a candidate took turns with.

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
    """A latency known on the scale of `before` on that of `now`: its ratio times the reference's time there.

    Both calibrations must be of one device and reference. What was measured counts as `cached`, as it was not measured
    in the run that `now` belongs to.
    """
    share = before.light_ratio if latency.against == "light" else 1
    turn = Estimate(latency.ratio / share, latency.ratio_low / share, latency.ratio_high / share)
    return of_turn(latency, turn, now)


def of_turn(latency: Latency, turn: Estimate, calibration: Calibration) -> Latency:
    """Return `latency`, of an earlier run, with the milliseconds that its ratio `turn` means under `calibration`."""
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
    """Whether measuring is done, and why.

    `interval` when the ratio's error is at most that share; `budget` when another round of `next_round_s` would not fit
    into `budget_s` after `seconds` spent; None to go on. Never before `MIN_ROUNDS`, whatever they cost, and for
    its interval never before `SETTLED_ROUNDS`.
    """
    if len(rounds) < MIN_ROUNDS:
        return None
    if len(rounds) >= SETTLED_ROUNDS and ratio_of(rounds, session_error).error <= interval:
        return "interval"
    return "budget" if seconds + next_round_s > budget_s else None


@dataclass(frozen=True)
class _Floor:
    """Of one model's rounds, in logarithms."""

    mean: float
    """Of the rounds kept, the fastest."""
    error: float
    """Half the 95 % interval of that mean, as far as the rounds kept show."""
    lift: float
    """How far the mean would rise if most rounds were kept."""


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
    """A mean of logarithms with its interval, in the values' own unit."""
    half = math.hypot(*(floor.error for floor in floors), COMPARED_WEIGHT * lift, _t95(10**6) * session_error)
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def _t95(degrees: int) -> float:
    """97.5 % quantile of Student's t, by its expansion in 1 / degrees (Abramowitz, Stegun 26.7.5): 0.4 % off at 7."""
    z = 1.959964
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
