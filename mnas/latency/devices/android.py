"""State of a phone, from commands that Android's shell user may run, and their parsers; otherwise pure.

No value is required, as makers hide sensors and clocks. A value that the phone does not report is None.
"""

import re
from dataclasses import dataclass, replace

from mnas.latency.unit import Condition

FULL_CLOCK = 0.98
"""Share of its maximum that a core must run at: reported clocks are rounded, and steps are at least 4 %."""
MODERATE = 2
"""Android's thermal status (0 none, 1 light, 2 moderate ... 6 shutdown) from which clocks are lowered."""
LOCAL = "/data/local/tmp"
"""Folder where the shell user may write and run programs."""
NO_TEMPERATURE = (-1, 6, 7, 8)
"""Types of Android's thermal sensors without a temperature: unknown, battery voltage, current and percentage."""
_CPU = "/sys/devices/system/cpu"
CLOCK = _CPU + "/cpu{}/cpufreq/scaling_cur_freq"
"""File with a core's present clock, in kHz."""

IDENTITY = "; ".join(
    [
        *(
            f"echo @{name}; getprop {prop}"
            for name, prop in {
                "model": "ro.product.model",
                "soc": "ro.soc.model",
                "board": "ro.board.platform",
                "release": "ro.build.version.release",
                "build": "ro.build.version.incremental",
                "abi": "ro.product.cpu.abi",
            }.items()
        ),
        "echo @cores",
        f"for c in {_CPU}/cpu[0-9]*; do "
        'echo "${c##*cpu} $(cat $c/cpufreq/cpuinfo_max_freq) $(cat $c/cpufreq/scaling_governor)"; done 2>/dev/null',
    ]
)
"""Command that prints what the phone is."""


def state_command(core: int | None) -> str:
    """Return the command that prints the phone's state; the clocks are of `core`."""
    frequency = f"{_CPU}/cpu{core or 0}/cpufreq"
    return "; ".join(
        [
            "echo @battery; dumpsys battery",
            't=$(dumpsys thermalservice 2>/dev/null); echo @thermal; echo "$t"',
            # reading a hundred zones takes time, so only where the service reports no temperature
            'case "$t" in *mValue=*) ;; *) echo @zones; cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null; esac',
            f"echo @clock; cat {frequency}/scaling_cur_freq 2>/dev/null",
            f"echo @cap; cat {frequency}/scaling_max_freq 2>/dev/null",
            "echo @load; cat /proc/loadavg 2>/dev/null",
        ]
    )


@dataclass(frozen=True)
class CoreOf:
    """One core of a phone."""

    number: int
    max_khz: int | None
    governor: str | None


@dataclass(frozen=True)
class Identity:
    """Identity of a phone."""

    model: str
    soc: str
    android: str
    abi: str
    cores: tuple[CoreOf, ...]

    def fastest(self, count: int = 1) -> list[CoreOf]:
        """Return the `count` cores with the highest maximum clock, the last of equals: interrupts prefer the first."""
        return sorted(self.cores, key=lambda core: (core.max_khz or 0, core.number), reverse=True)[:count]


@dataclass(frozen=True)
class State:
    """Present state of a phone; None where it does not report a value."""

    clock_khz: int | None
    cap_khz: int | None
    """Highest clock that the phone allows the core now, in kHz."""
    thermal_status: int | None
    sensor_c: float | None
    """Temperature of the hottest sensor, in degrees Celsius."""
    battery_c: float | None
    battery_percent: float | None
    charging: bool | None
    load: float | None

    def slowed(self, full_khz: int | None) -> str | None:
        """Return why the core runs, or will soon run, below `full_khz`; None if nothing slows it."""
        if full_khz is not None and self.cap_khz is not None and self.cap_khz < FULL_CLOCK * full_khz:
            return f"its core is limited to {self.cap_khz // 1000} of {full_khz // 1000} MHz"
        if self.thermal_status is not None and self.thermal_status >= MODERATE:
            return f"Android's thermal status is {self.thermal_status}"
        return None


def read_identity(text: str) -> Identity | None:
    """Return the identity in the output of `IDENTITY`; None where the output is not Android's."""
    sections = _sections(text)
    names = {
        name: " ".join(sections.get(name, "").split()) for name in ("model", "soc", "board", "release", "build", "abi")
    }
    if not (names["model"] and names["abi"]):
        return None
    return Identity(
        model=names["model"],
        soc=names["soc"] or names["board"] or "unknown",
        android=f"{names['release']} ({names['build']})",
        abi=names["abi"],
        cores=tuple(
            CoreOf(int(number), int(khz) if khz else None, governor or None)
            for number, khz, governor in re.findall(r"^(\d+) (\d*) ?(\S*)$", sections.get("cores", ""), re.M)
        ),
    )


def read_state(text: str) -> State:
    """Return the state in the output of `state_command`."""
    sections = _sections(text)
    battery, thermal = sections.get("battery", ""), sections.get("thermal", "")
    tenths, level, scale = (_find(rf"^\s*{name}: (-?\d+)\s*$", battery) for name in ("temperature", "level", "scale"))
    powered = re.findall(r"^\s*\w+ powered: (true|false)\s*$", battery, re.M)
    load = re.match(r"\d+\.\d+", sections.get("load", ""))
    return State(
        clock_khz=_find(r"^(\d+)\s*$", sections.get("clock", "")),
        cap_khz=_find(r"^(\d+)\s*$", sections.get("cap", "")),
        thermal_status=_find(r"^\s*Thermal Status: (\d+)\s*$", thermal),
        sensor_c=max(_sensors(thermal, sections.get("zones", "")), default=None),
        battery_c=None if tenths is None else tenths / 10,
        battery_percent=100 * level / scale if level is not None and scale else None,
        charging="true" in powered if powered else None,
        load=float(load[0]) if load else None,
    )


def condition_of(identity: Identity, state: State, core: CoreOf | None, full_khz: int | None) -> Condition:
    """Return the condition in every device's form; the clocks are of `core`, which should run at `full_khz`."""
    temperatures = [t for t in (state.sensor_c, state.battery_c) if t is not None]
    reported = state.thermal_status is not None or (state.cap_khz is not None and full_khz is not None)
    condition = Condition(
        model=identity.model,
        soc=identity.soc,
        temperature_c=max(temperatures, default=None),
        cores=tuple({"core": c.number, "max_mhz": _mhz(c.max_khz), "governor": c.governor} for c in identity.cores),
        throttled=state.slowed(full_khz) is not None if reported else None,
        battery_percent=state.battery_percent,
        charging=state.charging,
        load=state.load,
    )
    if core is None:
        return condition
    return replace(condition, clock_mhz=_mhz(state.clock_khz), max_clock_mhz=_mhz(core.max_khz))


def _sensors(thermal: str, zones: str) -> list[float]:
    """Return plausible temperatures in degrees Celsius, from Android's service or else from the kernel's zones."""
    now = thermal.partition("Current temperatures from HAL:")[2].partition("Current cooling devices")[0]
    values = re.findall(r"mValue=(-?\d+(?:\.\d+)?), mType=(-?\d+)", now)
    readings = [float(value) for value, kind in values if int(kind) not in NO_TEMPERATURE]
    if not readings:
        readings = [int(t) / 1000 for t in zones.split() if t.lstrip("-").isdigit()]
    return [t for t in readings if 1 < t < 150]


def _mhz(khz: int | None) -> int | None:
    return None if khz is None else khz // 1000


def _sections(text: str) -> dict[str, str]:
    """Return the lines below each line `@name`."""
    parts = re.split(r"^@(\w+)\s*\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _find(pattern: str, text: str) -> int | None:
    match = re.search(pattern, text, re.M)
    return int(match[1]) if match else None
