"""Calibrations of units of one device."""

import dataclasses

from mnas.latency.latency import Calibration

PIXEL = Calibration(
    reference="mobilenetv2",
    reference_ms=10.0,
    low_ms=9.9,
    high_ms=10.1,
    light_ratio=0.5,
    light_ratio_low=0.49,
    light_ratio_high=0.51,
    input_size=32,
    runtime="litert",
    threads=1,
    batch=1,
    unit="pixel/0",
    device={"processor": "G3", "os": "14"},
    session_error=0.004,
    pinned_core=7,
    realtime=False,
)


def unit(number, ms=10.0, share=0.5, **fields):
    levels = {"reference_ms": ms, "low_ms": 0.99 * ms, "high_ms": 1.01 * ms}
    ratios = {"light_ratio": share, "light_ratio_low": 0.98 * share, "light_ratio_high": 1.02 * share}
    return dataclasses.replace(PIXEL, unit=f"pixel/{number}", **levels, **ratios, **fields)
