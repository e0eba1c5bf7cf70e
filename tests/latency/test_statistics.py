"""The estimators on simulated rounds, whose true times are known."""

import math

import numpy as np
import pytest

from mnas.latency.latency import Calibration, UnitError
from mnas.latency.statistics import (
    MIN_ROUNDS,
    SETTLED_ROUNDS,
    Estimate,
    Round,
    latency_of,
    ratio_of,
    stop_reason,
    time_of,
)

RATIO = 0.9
REFERENCE_MS = 2.0


def made_up(seed, count, *, layout=0.005, noise=0.05, drift=0.0, spikes=0.0, disturbed=0.0):
    """Rounds of a machine with a speed that drifts, memory layouts, one-sided noise, spikes, and disturbed rounds."""
    draw = np.random.default_rng(seed)
    rounds = []
    for number in range(count):
        speed = 1 + drift * number / count
        slow = draw.random() < disturbed

        def times(base_ms, appetite, speed=speed, slow=slow):
            here = base_ms * speed * math.exp(layout * draw.standard_normal())
            ms = here * (1 + draw.exponential(noise, 8)) * (1 + appetite * slow)
            return list(np.where(draw.random(8) < spikes, 10 * ms, ms))

        # a disturbance slows the candidate more, because it needs more memory than the reference
        rounds.append(Round(times(RATIO * REFERENCE_MS, 0.5), times(REFERENCE_MS, 0.2)))
    return rounds


def calibration(low_ms=1.98, high_ms=2.02):
    return Calibration(
        reference="mobilenetv2",
        reference_ms=REFERENCE_MS,
        low_ms=low_ms,
        high_ms=high_ms,
        light_ratio=0.4,
        light_ratio_low=0.39,
        light_ratio_high=0.41,
        input_size=32,
        runtime="litert",
        threads=1,
        batch=1,
        unit="host",
        session_error=0.004,
        device={"cores": 2},
        pinned_core=1,
        realtime=False,
    )


def record(rounds, calibrated):
    return latency_of(rounds, calibrated, raw_median_ms=1.9, runs=80, stopped_by="budget", seconds=3.0)


def test_times_without_noise_give_their_exact_ratio():
    rounds = [Round([1.5, 1.8, 1.5], [2.0, 2.0])] * MIN_ROUNDS
    estimate = ratio_of(rounds)
    assert estimate.value == pytest.approx(0.75, rel=1e-12)
    assert estimate.low < 0.75 < estimate.high  # the interval includes the error between sessions
    assert time_of([r.reference_ms for r in rounds]).value == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize(
    "troubles",
    [{}, {"drift": 0.5}, {"spikes": 0.3}, {"disturbed": 0.4}, {"drift": 0.2, "spikes": 0.2, "disturbed": 0.3}],
    ids=lambda t: "+".join(t) or "calm",
)
def test_trouble_moves_the_ratio_by_less_than_two_per_cent(troubles):
    errors = [abs(ratio_of(made_up(seed, 48, **troubles)).value / RATIO - 1) for seed in range(40)]
    assert max(errors) < 0.02
    assert np.mean(errors) < 0.006


def test_plain_medians_are_moved_by_disturbed_rounds_where_the_estimate_is_not():
    rounds = made_up(0, 48, disturbed=0.7)
    medians = np.median([np.median(r.candidate_ms) / np.median(r.reference_ms) for r in rounds])
    assert medians / RATIO - 1 > 0.15
    assert abs(ratio_of(rounds).value / RATIO - 1) < 0.02


@pytest.mark.parametrize("count", [MIN_ROUNDS, 24, 60])
def test_the_interval_holds_the_truth_in_95_per_cent_of_sessions(count):
    """Rounds of a session share an error, as in reality (of the size of SESSION_ERROR).

    With many rounds more than 95 %: their spread may have been a disturbance, and the interval takes no chances.
    """
    draw = np.random.default_rng(1)
    held = 0
    for seed in range(500):
        estimate = ratio_of(made_up(seed, count, layout=0.01))
        truth = RATIO * math.exp(0.004 * draw.standard_normal())
        held += estimate.low <= truth <= estimate.high
    assert held >= 465


def test_the_interval_widens_where_rounds_disagree():
    calm, disturbed = (ratio_of(made_up(3, 60, disturbed=share)) for share in (0.0, 0.8))
    assert disturbed.error > 3 * calm.error
    assert disturbed.low <= RATIO <= disturbed.high


def test_the_interval_narrows_with_rounds():
    few, many = (ratio_of(made_up(3, n, layout=0.02)).error for n in (MIN_ROUNDS, 200))
    assert many < few


def test_swapping_the_models_inverts_the_ratio():
    rounds = made_up(5, 32, spikes=0.1)
    there, back = ratio_of(rounds), ratio_of([Round(r.reference_ms, r.candidate_ms) for r in rounds])
    assert there.value * back.value == pytest.approx(1, rel=1e-12)
    assert there.low * back.high == pytest.approx(1, rel=1e-12)


def test_error_is_half_the_relative_width():
    assert Estimate(2.0, 1.96, 2.04).error == pytest.approx(0.02)


def test_too_few_rounds_are_refused():
    with pytest.raises(ValueError, match=f"must have {MIN_ROUNDS} rounds or more, but got {MIN_ROUNDS - 1}"):
        ratio_of(made_up(0, MIN_ROUNDS - 1))


@pytest.mark.parametrize("bad", [[], [0.0], [-1.0], [1.0, math.nan], [math.inf]])
def test_times_that_no_clock_gives_are_refused(bad):
    with pytest.raises(UnitError, match="positive and finite"):
        Round(bad, [1.0])
    with pytest.raises(UnitError, match="positive and finite"):
        Round([1.0], bad)


def test_milliseconds_are_ratio_times_calibration_and_errors_add_up_squared():
    rounds = made_up(2, 40)
    ratio, latency = ratio_of(rounds), record(rounds, calibration())
    assert latency.latency_ms == pytest.approx(ratio.value * REFERENCE_MS, rel=1e-12)
    assert (latency.ratio, latency.ratio_low, latency.ratio_high) == (ratio.value, ratio.low, ratio.high)
    below = math.sqrt(math.log(ratio.value / ratio.low) ** 2 + math.log(2.0 / 1.98) ** 2)
    above = math.sqrt(math.log(ratio.high / ratio.value) ** 2 + math.log(2.02 / 2.0) ** 2)
    assert latency.low_ms == pytest.approx(latency.latency_ms * math.exp(-below), rel=1e-12)
    assert latency.high_ms == pytest.approx(latency.latency_ms * math.exp(above), rel=1e-12)
    assert latency.rounds == 40


def test_against_the_light_reference_the_ratio_is_still_to_the_reference():
    rounds = made_up(2, 40)
    ratio = ratio_of(rounds)
    latency = latency_of(
        rounds, calibration(), against="light", raw_median_ms=1.9, runs=80, stopped_by="budget", seconds=3.0
    )
    assert latency.against == "light"
    assert latency.ratio == pytest.approx(ratio.value * 0.4, rel=1e-12)
    assert latency.ratio_high == pytest.approx(ratio.high * 0.4, rel=1e-12)
    assert latency.latency_ms == pytest.approx(ratio.value * 0.4 * REFERENCE_MS, rel=1e-12)
    parts = (ratio.high / ratio.value, 2.02 / 2.0, 0.41 / 0.4)
    above = math.sqrt(sum(math.log(part) ** 2 for part in parts))
    assert latency.high_ms == pytest.approx(latency.latency_ms * math.exp(above), rel=1e-12)


def test_a_worse_calibration_widens_the_milliseconds_and_not_the_ratio():
    rounds = made_up(2, 40)
    good, poor = record(rounds, calibration()), record(rounds, calibration(low_ms=1.8, high_ms=2.2))
    assert poor.high_ms - poor.low_ms > 4 * (good.high_ms - good.low_ms)
    assert (good.ratio_low, good.ratio_high) == (poor.ratio_low, poor.ratio_high)


def stop(rounds, **changes):
    return stop_reason(rounds, **{"interval": 0.05, "seconds": 1.0, "next_round_s": 0.1, "budget_s": 3.0, **changes})


def test_stop_rules():
    calm, rough = made_up(0, 30), made_up(0, 30, layout=0.3)
    assert stop(calm) == "interval"
    assert stop(rough) is None
    assert stop(rough, seconds=2.95) == "budget"  # the next round would not fit
    assert stop(rough, seconds=2.89) is None
    assert stop(calm, seconds=2.95) == "interval"  # a narrow interval takes precedence, even at the last moment
    assert stop(calm[: SETTLED_ROUNDS - 1]) is None  # too early to believe a narrow interval
    assert stop(calm[:MIN_ROUNDS], seconds=99.0) == "budget"
    assert stop(calm[: MIN_ROUNDS - 1], seconds=99.0) is None
