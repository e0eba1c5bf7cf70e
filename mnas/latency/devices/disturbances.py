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
class Disturbance:
    """A disturbance and its remedy, one line each."""

    what: str
    remedy: str


def disturbances_of(
    kind: str, setup: Setup, condition: Condition, *, pinned_core: int | None, realtime: bool
) -> list[Disturbance]:
    """Return the disturbances, the worst first; a value that the device does not report is no disturbance."""
    device_kind = KINDS[kind]
    return [
        *_heat(device_kind, condition),
        *_power(condition),
        *_load(device_kind.remedies, condition),
        *_scheduling(device_kind.remedies, setup, pinned_core, realtime),
    ]


def _heat(kind: DeviceKind, condition: Condition) -> list[Disturbance]:
    disturbances = []
    if condition.throttled:
        what = "the device is lowering its clock now (heat or low voltage)"
        disturbances.append(Disturbance(what, kind.remedies.throttled))
    if condition.temperature_c is not None and condition.temperature_c > kind.hot_c:
        what = f"the device is hot: {condition.temperature_c:.0f} °C, above {kind.hot_c:.0f} °C"
        disturbances.append(Disturbance(what, kind.remedies.hot))
    core = measuring_core(condition)
    if core and core.get("governor") not in (None, "performance"):
        what = f"the governor {core['governor']} may change the clock during a measurement"
        disturbances.append(Disturbance(what, kind.remedies.governor))
    return disturbances


def _power(condition: Condition) -> list[Disturbance]:
    battery = condition.battery_percent
    if battery is None:
        return []
    if battery < LOW_BATTERY and not condition.charging:
        return [Disturbance(f"the battery is low: {battery:.0f} %", f"charge it to over {LOW_BATTERY} % first")]
    if condition.charging and not LOW_BATTERY <= battery < FULL_BATTERY:
        low = battery < LOW_BATTERY
        why = "a low battery charges fast and gets hot" if low else "a full battery that stays plugged in gets hot"
        remedy = "let it charge first" if low else "unplug it for a while, or connect over Wi-Fi"
        return [Disturbance(f"the battery is charging at {battery:.0f} %: {why}", remedy)]
    return []


def _load(remedies: Remedies, condition: Condition) -> list[Disturbance]:
    if condition.load is None or condition.load < BUSY:
        return []
    what = f"other programs are running: the load over the last minute is {condition.load:.1f}"
    return [Disturbance(what, remedies.busy)]


def _scheduling(remedies: Remedies, setup: Setup, pinned_core: int | None, realtime: bool) -> list[Disturbance]:
    disturbances = []
    if setup.threads > 1:
        disturbances.append(
            Disturbance(
                f"{setup.threads} threads are not pinned and wait for each other",
                "set threads = 1 in devices.toml, unless your application uses several",
            )
        )
    elif pinned_core is None:
        what = "the measurement is not pinned to a core"
        disturbances.append(Disturbance(what, "expect wider intervals, as this system cannot pin it"))
    if pinned_core is not None and not realtime and remedies.no_realtime:
        what = "the measurement has no real-time priority, so other programs may interrupt it"
        disturbances.append(Disturbance(what, remedies.no_realtime))
    return disturbances


def measuring_core(condition: Condition) -> dict[str, Any] | None:
    """Return the core with the highest clock, the last of equals; None for a device that reports no cores."""
    return max(condition.cores, key=lambda core: (core.get("max_mhz") or 0, core["core"]), default=None)
