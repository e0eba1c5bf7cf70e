"""What sessions differ by, and what is kept of it."""

import dataclasses
import json
import math

import pytest
from calibrations import PIXEL, unit

from mnas.latency.latency import Setup
from mnas.latency.repeatability import find_repeatability, keep_repeatability, repeatability_of, session_error_of
from mnas.latency.statistics import SESSION_ERROR


def sessions(shares, levels=None, half=0.0):
    """Calibrations of one unit; `half`: half the interval of each ratio, in logarithms."""
    made = []
    for share, ms in zip(shares, levels or [10.0] * len(shares), strict=True):
        ends = {"light_ratio_low": share * math.exp(-half), "light_ratio_high": share * math.exp(half)}
        made.append(dataclasses.replace(unit(0, ms, share), **ends))
    return made


def test_deviations_are_those_of_logarithms():
    found = repeatability_of("pixel", sessions([0.49, 0.5, 0.51], [9.0, 10.0, 11.0]))
    logs = [math.log(x / 0.5) for x in (0.49, 0.5, 0.51)]
    mean = sum(logs) / 3
    expected = math.sqrt(sum((x - mean) ** 2 for x in logs) / 2)
    assert found.ratio_deviation == pytest.approx(expected)
    assert found.session_error == pytest.approx(expected)  # the intervals are nothing, and explain nothing
    assert found.level_deviation == pytest.approx(0.1, rel=0.01)
    assert (found.light_ratio, found.reference_ms) == pytest.approx(((0.49 * 0.5 * 0.51) ** (1 / 3), 990 ** (1 / 3)))
    assert (found.sessions, found.device, found.reference) == (3, PIXEL.device, "mobilenetv2")


def test_what_the_rounds_explain_is_not_counted_twice_and_the_floor_holds():
    shares = [0.49, 0.5, 0.51]
    plain = repeatability_of("pixel", sessions(shares)).session_error
    half = 1.96 * 0.6 * plain
    assert repeatability_of("pixel", sessions(shares, half=half)).session_error == pytest.approx(0.8 * plain)
    assert repeatability_of("pixel", sessions(shares, half=9 * half)).session_error == 0.002
    assert repeatability_of("pixel", sessions([0.5] * 4)).session_error == 0.002


def test_it_is_kept_for_the_device_and_its_way_of_running(tmp_path):
    assert session_error_of(tmp_path, PIXEL.device, Setup()) == SESSION_ERROR
    found = repeatability_of("pixel/0", sessions([0.49, 0.5, 0.51]))
    path = keep_repeatability(tmp_path / "devices", found)
    assert find_repeatability(tmp_path / "devices", PIXEL.device, Setup()) == found
    assert session_error_of(tmp_path / "devices", PIXEL.device, Setup()) == found.session_error
    assert find_repeatability(tmp_path / "devices", PIXEL.device, Setup(threads=2)) is None
    assert find_repeatability(tmp_path / "devices", {**PIXEL.device, "os": "15"}, Setup()) is None
    whole = path.read_text()
    nan = float("nan")
    changes = [{"session_error": 0.0}, {"session_error": nan}, {"reference_ms": nan}, {"light_ratio": "x"}, {"at": 5}]
    changes += [{"threads": 1.5}, {"sessions": 0}, {"ratio_deviation": -1}, {"name": None}, {"more": 1}]
    texts = [json.dumps({**json.loads(whole), **change}) for change in changes]
    for damaged in (whole[:40], "[]", "null", "[" * 100_000, *texts):
        path.write_text(damaged)
        assert session_error_of(tmp_path / "devices", PIXEL.device, Setup()) == SESSION_ERROR


def test_too_few_sessions_are_refused():
    with pytest.raises(ValueError, match="repeatability needs 3 sessions or more, but got 2"):
        repeatability_of("pixel", sessions([0.5, 0.5]))
