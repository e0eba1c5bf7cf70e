"""Disturbances of a measurement, derived from the condition that a device reports."""

import pytest

from mnas.latency.devices.disturbances import disturbances_of, measuring_core
from mnas.latency.latency import Setup
from mnas.latency.unit import Condition

CALM = {"temperature_c": 40.0, "throttled": False, "load": 0.1}
CORES = tuple({"core": c, "max_mhz": mhz, "governor": "performance"} for c, mhz in enumerate((1800, 2400, 2400)))


def found(kind="ssh", setup=None, pinned_core=2, realtime=True, **condition):
    reported = Condition(**{**CALM, "cores": CORES, **condition})
    return [
        d.what for d in disturbances_of(kind, setup or Setup(), reported, pinned_core=pinned_core, realtime=realtime)
    ]


def test_a_calm_device_and_one_that_reports_nothing_have_no_disturbances():
    assert found() == []
    assert found("adb", battery_percent=60.0, charging=True, realtime=False) == []
    assert disturbances_of("host", Setup(), Condition(), pinned_core=0, realtime=True) == []


@pytest.mark.parametrize(
    ("condition", "what"),
    [
        ({"throttled": True}, "the device is lowering its clock now (heat or low voltage)"),
        ({"temperature_c": 81.0}, "the device is hot: 81 °C, above 75 °C"),
        ({"kind": "adb", "temperature_c": 61.0}, "the device is hot: 61 °C, above 60 °C"),
        ({"load": 1.25}, "other programs are running: the load over the last minute is 1.2"),
        ({"battery_percent": 12.0, "charging": False}, "the battery is low: 12 %"),
        (
            {"battery_percent": 12.0, "charging": True},
            "the battery is charging at 12 %: a low battery charges fast and gets hot",
        ),
        (
            {"battery_percent": 99.0, "charging": True},
            "the battery is charging at 99 %: a full battery that stays plugged in gets hot",
        ),
        (
            {"cores": ({**CORES[0], "governor": "ondemand"},)},
            "the governor ondemand may change the clock during a measurement",
        ),
        ({"setup": Setup(threads=4), "pinned_core": None}, "4 threads are not pinned and wait for each other"),
        ({"pinned_core": None, "realtime": False}, "the measurement is not pinned to a core"),
        (
            {"realtime": False},
            "the measurement has no real-time priority, so other programs may interrupt it",
        ),
    ],
)
def test_each_disturbance_is_found_alone_and_has_a_remedy(condition, what):
    assert found(**condition) == [what]
    kind, setup = condition.pop("kind", "ssh"), condition.pop("setup", Setup())
    how = {"pinned_core": condition.pop("pinned_core", 2), "realtime": condition.pop("realtime", True)}
    (disturbance,) = disturbances_of(kind, setup, Condition(**{**CALM, "cores": CORES, **condition}), **how)
    assert disturbance.remedy
    assert "\n" not in disturbance.remedy


def test_only_the_governor_of_the_core_that_measures_counts():
    slow = {"core": 0, "max_mhz": 1800, "governor": "powersave"}
    assert measuring_core(Condition(cores=(slow, *CORES[1:]))) == CORES[2]
    assert found(cores=(slow, *CORES[1:])) == []
    assert measuring_core(Condition()) is None
