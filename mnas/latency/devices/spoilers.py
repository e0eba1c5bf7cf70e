"""Disturbances of a measurement on a device, and their remedies; pure."""

from dataclasses import dataclass
from typing import Any

from mnas.latency.devices.kinds import KINDS, DeviceKind, Remedies
from mnas.latency.latency import Setup
from mnas.latency.unit import Condition

LOW_BATTERY, FULL_BATTERY = 30, 95
BUSY = 0.7
"""Number of runnable programs, on average over a minute, from which a device is busy."""


@dataclass(frozen=True)
class Spoiler:
    """A disturbance and its remedy, one line each."""

    what: str
    mend: str


def spoilers(
    kind: str, setup: Setup, condition: Condition, *, pinned_core: int | None, realtime: bool
) -> list[Spoiler]:
    """Return the disturbances, the worst first; a value that the device does not report is no disturbance."""
    device_kind = KINDS[kind]
    return [
        *_heat(device_kind, condition),
        *_power(condition),
        *_load(device_kind.remedies, condition),
        *_scheduling(device_kind.remedies, setup, pinned_core, realtime),
    ]


def _heat(kind: DeviceKind, condition: Condition) -> list[Spoiler]:
    disturbances = []
    if condition.throttled:
        disturbances.append(Spoiler("it holds its clock down now (heat, or low voltage)", kind.remedies.throttled))
    if condition.temperature_c is not None and condition.temperature_c > kind.hot_c:
        what = f"it is hot: {condition.temperature_c:.0f} C, over {kind.hot_c:.0f} C"
        disturbances.append(Spoiler(what, kind.remedies.hot))
    core = measuring_core(condition)
    if core and core.get("governor") not in (None, "performance"):
        what = f"governor {core['governor']} changes the clock as it likes"
        disturbances.append(Spoiler(what, kind.remedies.governor))
    return disturbances


def _power(condition: Condition) -> list[Spoiler]:
    battery = condition.battery_percent
    if battery is None:
        return []
    if battery < LOW_BATTERY and not condition.charging:
        return [Spoiler(f"its battery is low: {battery:.0f} %", f"charge it to over {LOW_BATTERY} % first")]
    if condition.charging and not LOW_BATTERY <= battery < FULL_BATTERY:
        low = battery < LOW_BATTERY
        why = "a low battery charges fast and heats" if low else "a full battery heats while it is kept so"
        mend = "let it charge first" if low else "unplug it for a while, or connect over Wi-Fi"
        return [Spoiler(f"it charges at {battery:.0f} %: {why}", mend)]
    return []


def _load(remedies: Remedies, condition: Condition) -> list[Spoiler]:
    if condition.load is None or condition.load < BUSY:
        return []
    return [Spoiler(f"other programs run: a load of {condition.load:.1f} over the last minute", remedies.busy)]


def _scheduling(remedies: Remedies, setup: Setup, pinned_core: int | None, realtime: bool) -> list[Spoiler]:
    disturbances = []
    if setup.threads > 1:
        disturbances.append(
            Spoiler(
                f"{setup.threads} threads are not pinned, and wait for each other",
                "threads = 1 in devices.toml, unless your application runs several",
            )
        )
    elif pinned_core is None:
        disturbances.append(Spoiler("measuring is not pinned to a core", "this system cannot; expect wider intervals"))
    if pinned_core is not None and not realtime and remedies.no_realtime:
        disturbances.append(
            Spoiler("no real-time priority: other programs may interrupt an inference", remedies.no_realtime)
        )
    return disturbances


def measuring_core(condition: Condition) -> dict[str, Any] | None:
    """Return the core with the highest clock, the last of equals; None for a device that reports no cores."""
    return max(condition.cores, key=lambda core: (core.get("max_mhz") or 0, core["core"]), default=None)
