"""What would spoil a measurement, from what a device tells."""

import pytest

from mnas.latency.devices.spoilers import measuring_core, spoilers
from mnas.latency.latency import Setup
from mnas.latency.unit import Condition

CALM = {"temperature_c": 40.0, "throttled": False, "load": 0.1}
CORES = tuple({"core": c, "max_mhz": mhz, "governor": "performance"} for c, mhz in enumerate((1800, 2400, 2400)))


def found(kind="ssh", setup=None, pinned_core=2, realtime=True, **condition):
    told = Condition(**{**CALM, "cores": CORES, **condition})
    return [s.what for s in spoilers(kind, setup or Setup(), told, pinned_core=pinned_core, realtime=realtime)]


def test_of_a_calm_device_and_of_one_that_tells_nothing_nothing_is_said():
    assert found() == []
    assert found("adb", battery_percent=60.0, charging=True, realtime=False) == []
    assert spoilers("host", Setup(), Condition(), pinned_core=0, realtime=True) == []


@pytest.mark.parametrize(
    ("condition", "what"),
    [
        ({"throttled": True}, "it holds its clock down now (heat, or low voltage)"),
        ({"temperature_c": 81.0}, "it is hot: 81 C, over 75 C"),
        ({"kind": "adb", "temperature_c": 61.0}, "it is hot: 61 C, over 60 C"),
        ({"load": 1.25}, "other programs run: a load of 1.2 over the last minute"),
        ({"battery_percent": 12.0, "charging": False}, "its battery is low: 12 %"),
        ({"battery_percent": 12.0, "charging": True}, "it charges at 12 %: a low battery charges fast and heats"),
        ({"battery_percent": 99.0, "charging": True}, "it charges at 99 %: a full battery heats while it is kept so"),
        ({"cores": ({**CORES[0], "governor": "ondemand"},)}, "governor ondemand changes the clock as it likes"),
        ({"setup": Setup(threads=4), "pinned_core": None}, "4 threads are not pinned, and wait for each other"),
        ({"pinned_core": None, "realtime": False}, "measuring is not pinned to a core"),
        ({"realtime": False}, "no real-time priority: other programs may interrupt an inference"),
    ],
)
def test_each_is_found_alone_and_can_be_mended(condition, what):
    assert found(**condition) == [what]
    kind, setup = condition.pop("kind", "ssh"), condition.pop("setup", Setup())
    how = {"pinned_core": condition.pop("pinned_core", 2), "realtime": condition.pop("realtime", True)}
    (spoiler,) = spoilers(kind, setup, Condition(**{**CALM, "cores": CORES, **condition}), **how)
    assert spoiler.mend
    assert "\n" not in spoiler.mend


def test_only_the_governor_of_the_core_that_measures_counts():
    slow = {"core": 0, "max_mhz": 1800, "governor": "powersave"}
    assert measuring_core(Condition(cores=(slow, *CORES[1:]))) == CORES[2]
    assert found(cores=(slow, *CORES[1:])) == []
    assert measuring_core(Condition()) is None
