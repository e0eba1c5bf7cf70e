"""What about a device would spoil a measurement, and how to mend it; pure."""

from dataclasses import dataclass
from typing import Any

from mnas.latency.devices.registry import Kind
from mnas.latency.latency import Setup
from mnas.latency.unit import Condition

HOT_C = {"host": 85.0, "ssh": 75.0, "adb": 60.0}
"""A sensor above this: the clock may be held down soon. Boards without a fan slow down at 80."""
LOW_BATTERY, FULL_BATTERY = 30, 95
BUSY = 0.7
"""Programs that want to run, on average over a minute."""


@dataclass(frozen=True)
class Spoiler:
    what: str
    mend: str


def spoilers(
    kind: Kind, setup: Setup, condition: Condition, *, pinned_core: int | None, realtime: bool
) -> list[Spoiler]:
    """What was found, the worst first; nothing is said of what the device does not tell."""
    found = [*_heat(kind, condition), *_power(condition), *_company(kind, condition)]
    if setup.threads > 1:
        found.append(
            Spoiler(
                f"{setup.threads} threads are not pinned, and wait for each other",
                "threads = 1 in devices.toml, unless your application runs several",
            )
        )
    elif pinned_core is None:
        found.append(Spoiler("measuring is not pinned to a core", "this system cannot; expect wider intervals"))
    if pinned_core is not None and not realtime and kind != "adb":
        found.append(
            Spoiler(
                "no real-time priority: other programs may interrupt an inference",
                "run as root, or allow it: echo 'USER - rtprio 1' | sudo tee /etc/security/limits.d/mnas.conf, and log "
                "in again",
            )
        )
    return found


def _heat(kind: Kind, condition: Condition) -> list[Spoiler]:
    found = []
    if condition.throttled:
        mend = (
            "let it cool, switch the battery saver off; a clock that it never gives: max_mhz in devices.toml"
            if kind == "adb"
            else "let it cool, give it a fan, and a power supply that is strong enough"
        )
        found.append(Spoiler("it holds its clock down now (heat, or low voltage)", mend))
    if condition.temperature_c is not None and condition.temperature_c > HOT_C[kind]:
        mend = "out of its case and the sun, and wait" if kind == "adb" else "wait, or give it a fan"
        found.append(Spoiler(f"it is hot: {condition.temperature_c:.0f} C, over {HOT_C[kind]:.0f} C", mend))
    core = measuring_core(condition)
    if core and core.get("governor") not in (None, "performance"):
        mend = (
            "phones do not let you choose; measurements warm the core up first"
            if kind == "adb"
            else "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        )
        found.append(Spoiler(f"governor {core['governor']} changes the clock as it likes", mend))
    return found


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


def _company(kind: Kind, condition: Condition) -> list[Spoiler]:
    if condition.load is None or condition.load < BUSY:
        return []
    mend = "airplane mode, and wait" if kind == "adb" else "stop other programs; `top` shows them"
    return [Spoiler(f"other programs run: a load of {condition.load:.1f} over the last minute", mend)]


def measuring_core(condition: Condition) -> dict[str, Any] | None:
    """The core with the highest clock, the last of equals; None where no cores are told."""
    return max(condition.cores, key=lambda core: (core.get("max_mhz") or 0, core["core"]), default=None)
