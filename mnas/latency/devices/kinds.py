"""The kinds of devices, one row each. A new kind is a module that opens its units, and a row of `KINDS`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mnas.latency.onboard.script import RUNTIMES


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of devices.toml that only one kind has."""

    default: str | int
    """Default value."""
    rule: str
    """Rule for a value, for messages."""
    holds: Callable[[object], bool]
    """Function that returns whether a value is valid."""


def text(default: str) -> Key:
    """Return a key whose values are strings."""
    return Key(
        default=default, rule="a string that is not empty", holds=lambda value: isinstance(value, str) and value != ""
    )


def auto_or_integer(least: int) -> Key:
    """Return a key whose values are "auto" or integers of `least` or more."""
    return Key(
        default="auto",
        rule=f'"auto" or an integer of {least} or more',
        holds=lambda value: value == "auto" or (type(value) is int and value >= least),
    )


def host_and_port(text: str) -> tuple[str, int] | None:
    """Return the host and the port of `HOST:PORT`, or None if `text` has another form."""
    match = re.fullmatch(r"(\S+):([0-9]{1,5})", text)
    return (match[1], int(match[2])) if match and 0 < int(match[2]) < 65536 else None


ADDRESS_OF_SERVER = Key(
    default="auto",
    rule='"auto" or HOST:PORT',
    holds=lambda value: isinstance(value, str) and (value == "auto" or host_and_port(value) is not None),
)


@dataclass(frozen=True, kw_only=True)
class Remedies:
    """Remedies for disturbances on devices of one kind."""

    throttled: str
    hot: str
    governor: str
    busy: str
    no_realtime: str | None
    """Remedy for a missing real-time priority; None where that is normal, and no disturbance."""


COMPUTER = Remedies(
    throttled="let it cool, add a fan, and use a stronger power supply",
    hot="wait, or add a fan",
    governor="run: echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    busy="stop other programs; `top` lists them",
    no_realtime="run as root, or run: echo 'USER - rtprio 1' | sudo tee /etc/security/limits.d/mnas.conf, and log in "
    "again",
)
PHONE = Remedies(
    throttled="let it cool and turn its battery saver off; if it never reaches this clock, set max_mhz in devices.toml",
    hot="take it out of its case and the sun, and wait",
    governor="phones do not let you change it; every measurement warms the core up first",
    busy="turn on airplane mode, and wait",
    no_realtime=None,
)


@dataclass(frozen=True, kw_only=True)
class DeviceKind:
    """Properties of one kind of device."""

    opener: str
    """`module:function` that takes (name, address, core=, say=, and the keys below) and returns a `Unit`. The unit
    connects, and calls `say`, on first use. The function raises ValueError for a value that it cannot use."""
    package: str | None = None
    """Package that the opener needs beyond the core."""
    extra: str | None = None
    """Extra of mnas that installs the package."""
    local: bool = False
    """Whether the device is this machine, without an address and with the runtimes of this Python."""
    runtimes: tuple[str, ...] = tuple(RUNTIMES)
    """Runtimes that devices of this kind can use."""
    keys: Mapping[str, Key] = field(default_factory=dict)
    """Keys of devices.toml that only this kind has."""
    hot_c: float
    """Temperature in degrees Celsius above which the device may soon lower its clock."""
    drift: float
    """Tolerated relative change of the reference's latency since the calibration."""
    remedies: Remedies
    """Remedy for each disturbance."""


KINDS: dict[str, DeviceKind] = {
    "host": DeviceKind(
        opener="mnas.latency.devices.host:host_unit",
        local=True,
        hot_c=85.0,
        drift=1.0,  # the user's other programs run beside the measurement
        remedies=COMPUTER,
    ),
    "adb": DeviceKind(
        opener="mnas.latency.devices.adb:adb_unit",
        package="adbutils",
        extra="adb",
        keys={
            "benchmark_model": text("device:/data/local/tmp/benchmark_model"),
            "max_mhz": auto_or_integer(1),
            "adb_server": ADDRESS_OF_SERVER,
        },
        runtimes=("litert", "litert-builtin"),
        hot_c=60.0,
        drift=0.3,
        remedies=PHONE,
    ),
    "ssh": DeviceKind(
        opener="mnas.latency.devices.ssh:ssh_unit",
        package="asyncssh",
        extra="ssh",
        keys={"python": text("python3")},
        hot_c=75.0,  # boards without a fan slow down at 80
        drift=0.3,
        remedies=COMPUTER,
    ),
}
"""Name of each kind in devices.toml -> its properties."""
