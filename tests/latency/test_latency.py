"""The records: conversion in both directions, and rejected values."""

import dataclasses
import json
import math

import pytest

from mnas.latency.latency import Calibration, Latency

LATENCY = Latency(
    latency_ms=2.0,
    low_ms=1.9,
    high_ms=2.1,
    ratio=0.5,
    ratio_low=0.49,
    ratio_high=0.51,
    against="light",
    raw_median_ms=2.3,
    runs=100,
    rounds=12,
    stopped_by="interval",
    seconds=1.5,
    drift=0.01,
    disturbed=0.0,
    peak_memory_bytes=None,
    energy_mj=None,
    unit="host",
    source="measured",
)
CALIBRATION = Calibration(
    reference="mobilenetv2/s8",
    reference_ms=4.0,
    low_ms=3.9,
    high_ms=4.1,
    light_ratio=0.3,
    light_ratio_low=0.29,
    light_ratio_high=0.31,
    input_size=32,
    runtime="litert",
    threads=1,
    batch=1,
    unit="host",
    session_error=0.004,
    device={"processor": "x", "cores": 2},
    pinned_core=None,
    realtime=False,
)


@pytest.mark.parametrize("record", [LATENCY, CALIBRATION], ids=lambda r: type(r).__name__)
def test_records_come_back_equal_from_json(record):
    assert type(record).from_dict(json.loads(json.dumps(record.to_dict()))) == record


@pytest.mark.parametrize("record", [LATENCY, CALIBRATION], ids=lambda r: type(r).__name__)
def test_missing_unknown_and_no_fields_are_refused(record):
    values = record.to_dict()
    name = next(iter(values))
    for bad in ({k: v for k, v in values.items() if k != name}, {**values, "more": 1}, [], None, 3):
        with pytest.raises(ValueError, match="must have exactly the fields"):
            type(record).from_dict(bad)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latency_ms": 0.0}, "low_ms, latency_ms, high_ms must be positive"),
        ({"low_ms": -1.0}, "must be positive"),
        ({"latency_ms": math.nan}, "must be positive"),
        ({"high_ms": math.inf}, "must be positive"),
        ({"latency_ms": 2.2}, "in this order"),
        ({"against": "mobilenetv2"}, "against must be one of reference, light"),
        ({"ratio_low": 0.52}, "ratio_low, ratio, ratio_high"),
        ({"ratio": "0.5"}, "ratio_low, ratio, ratio_high"),
        ({"raw_median_ms": 0.0}, "raw_median_ms"),
        ({"stopped_by": "hunger"}, "stopped_by must be one of interval, budget, but got 'hunger'"),
    ],
)
def test_impossible_latencies_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(LATENCY, **changes)


def test_impossible_calibrations_are_refused():
    with pytest.raises(ValueError, match="low_ms, reference_ms, high_ms"):
        dataclasses.replace(CALIBRATION, reference_ms=5.0)
