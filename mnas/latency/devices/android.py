"""What a phone tells of itself, by commands that Android's shell user may run, and how it is read; pure but for these.

Nothing here is required to be there: makers hide sensors and clocks. What is not told is None.
"""

import re
from dataclasses import dataclass, replace

from mnas.latency.unit import Condition

FULL_CLOCK = 0.98
"""Share of its maximum that a core must run at: clocks are told rounded, and one step less is at least 4 % less."""
MODERATE = 2
"""Android's thermal status (0 none, 1 light, 2 moderate ... 6 shutdown) from which clocks suffer."""
LOCAL = "/data/local/tmp"
"""Where the shell user may write and run programs."""
NO_TEMPERATURE = (-1, 6, 7, 8)
"""Types of Android's thermal sensors that tell something else: unknown, battery voltage, current and percentage."""
_CPU = "/sys/devices/system/cpu"
CLOCK = _CPU + "/cpu{}/cpufreq/scaling_cur_freq"
"""The file that tells a core's clock now, in kHz."""

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
"""Command that tells what the phone is."""


def state_command(core: int | None) -> str:
    """Command that tells how the phone is now; the clocks are of `core`."""
    frequency = f"{_CPU}/cpu{core or 0}/cpufreq"
    return "; ".join(
        [
            "echo @battery; dumpsys battery",
            't=$(dumpsys thermalservice 2>/dev/null); echo @thermal; echo "$t"',
            # there may be a hundred, and reading them takes its time: only where the service tells none
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
    """What a phone is."""

    model: str
    soc: str
    android: str
    abi: str
    cores: tuple[CoreOf, ...]

    def fastest(self, count: int = 1) -> list[CoreOf]:
        """The `count` cores with the highest maximum clock, of equals the last: interrupts prefer the first."""
        return sorted(self.cores, key=lambda core: (core.max_khz or 0, core.number), reverse=True)[:count]


@dataclass(frozen=True)
class State:
    """How a phone is now; None for what it does not tell."""

    clock_khz: int | None
    cap_khz: int | None
    """What the phone lets the core run at, at most, now."""
    thermal_status: int | None
    sensor_c: float | None
    """The hottest sensor."""
    battery_c: float | None
    battery_percent: float | None
    charging: bool | None
    load: float | None

    def slowed(self, full_khz: int | None) -> str | None:
        """Why a core that should run at `full_khz` is, or will soon be, kept below; None where it is not."""
        if full_khz is not None and self.cap_khz is not None and self.cap_khz < FULL_CLOCK * full_khz:
            return f"its core is held at {self.cap_khz // 1000} of {full_khz // 1000} MHz"
        if self.thermal_status is not None and self.thermal_status >= MODERATE:
            return f"Android's thermal status is {self.thermal_status}"
        return None


def read_identity(text: str) -> Identity | None:
    """Of what `IDENTITY` printed; None where that is no Android's answer."""
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
    """Of what `state_command` printed."""
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
    """As every device tells it; the clocks are of `core`, which is to run at `full_khz`."""
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
    """Degrees Celsius of what Android's service tells now, else of the kernel's zones; without what cannot be one."""
    now = thermal.partition("Current temperatures from HAL:")[2].partition("Current cooling devices")[0]
    values = re.findall(r"mValue=(-?\d+(?:\.\d+)?), mType=(-?\d+)", now)
    readings = [float(value) for value, kind in values if int(kind) not in NO_TEMPERATURE]
    if not readings:
        readings = [int(t) / 1000 for t in zones.split() if t.lstrip("-").isdigit()]
    return [t for t in readings if 1 < t < 150]


def _mhz(khz: int | None) -> int | None:
    return None if khz is None else khz // 1000


def _sections(text: str) -> dict[str, str]:
    """The lines behind each line `@name`."""
    parts = re.split(r"^@(\w+)\s*\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _find(pattern: str, text: str) -> int | None:
    match = re.search(pattern, text, re.M)
    return int(match[1]) if match else None
