"""`mnas devices list | check | calibrate`: list devices, and check how far to trust their measurements."""

import contextlib
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mnas.cli.console import make_console
from mnas.export.render import render
from mnas.folders import user_state_dir
from mnas.latency.devices.disturbances import disturbances_of, measuring_core
from mnas.latency.devices.registry import (
    DeviceEntry,
    devices_file,
    find_device,
    open_units,
    read_devices,
    unit_addresses,
)
from mnas.latency.fleet.lease import lease, lease_key
from mnas.latency.latency import Calibration, MeasurementError, UnitError
from mnas.latency.protocol import LIGHT_WIDTH, Reference, calibrate, make_reference
from mnas.latency.repeatability import (
    LEAST_SESSIONS,
    Repeatability,
    find_repeatability,
    keep_repeatability,
    repeatability_of,
)
from mnas.latency.unit import Condition, Unit
from mnas.require import MOST_INPUT_SIZE, require_int
from mnas.text import clean
from mnas.zoo.architectures import named_arch

File = Path | Literal["auto"]
HIGH_ERROR = 0.005
"""Error between sessions above which no measurement reaches an interval of 1 %: it contains 1.96 times this error."""


@dataclass(frozen=True, kw_only=True)
class DevicesListCommand:
    """List the devices in devices.toml, and this machine, which is always available as `host`."""

    devices: File = "auto"
    """File that describes the devices; auto: devices.toml in your configuration folder (~/.config/mnas on Linux)."""

    def run(self) -> None:
        """Print the table. Raises ValueError for an invalid file."""
        entries = read_devices(self.devices)
        table = Table("device", "kind", "address", "runtime", "core", "threads", "batch")
        for e in entries.values():
            addresses = Text("\n".join(map(clean, e.address)))
            table.add_row(e.name, e.kind, addresses, e.runtime, str(e.core), str(e.threads), str(e.batch))
        console = make_console()
        console.print(table)
        path = devices_file() if self.devices == "auto" else self.devices
        state = "" if path.exists() else " (does not exist yet)"
        console.print(f"  devices file: {path}{state}")
        option = "" if self.devices == "auto" else f" --devices {shlex.quote(str(path))}"
        console.print(f"next, check that a device is fit to measure on: mnas devices check NAME{option}")


@dataclass(frozen=True, kw_only=True)
class DevicesCheckCommand:
    """Check that a device is fit to measure on: it runs models, and nothing on it disturbs measurements."""

    name: str = field(kw_only=False)
    """Name of the device, as `mnas devices list` prints it."""
    devices: File = "auto"
    """File that describes the devices; auto: devices.toml in your configuration folder (~/.config/mnas on Linux)."""

    def run(self) -> None:
        """Print the check's result for each unit. Raises UnitError, MeasurementError, ValueError if none is usable."""
        entry = find_device(self.name, self.devices, option="NAME")
        console, usable, failures = make_console(), 0, []
        reference = make_reference(
            named_arch("mobilenetv2"), "mobilenetv2", 96, 10, render(entry.setup)
        )  # small: it only has to run
        for unit, key, address in _units(entry, console):
            try:
                _check(console, entry, unit, key, address, reference)
                usable += 1
            except (UnitError, MeasurementError, ValueError) as failure:
                if not entry.address[1:]:
                    raise
                console.print(f"  not usable: {failure}")
                failures.append(str(failure))
        if not usable:
            raise UnitError(f"no unit of {entry.name} is usable: {'; '.join(failures)}")


@dataclass(frozen=True, kw_only=True)
class DevicesCalibrateCommand:
    """Measure how much latencies vary between sessions on a device. Later confidence intervals include this
    variation."""

    name: str = field(kw_only=False)
    """Name of the device, as `mnas devices list` prints it."""
    devices: File = "auto"
    """File that describes the devices; auto: devices.toml in your configuration folder (~/.config/mnas on Linux)."""
    sessions: int = 5
    """Number of sessions on each unit (each physical device of this name); each opens a new connection and measures the
    reference network."""
    budget_s: float = 5.0
    """Time for measuring in each session, in seconds."""
    input_size: int = 224
    """Input size in pixels."""

    def __post_init__(self) -> None:
        if self.sessions < LEAST_SESSIONS:
            raise ValueError(f"--sessions must be at least {LEAST_SESSIONS}, but got {self.sessions}")
        if not 0 < self.budget_s < float("inf"):
            raise ValueError(f"--budget-s must be finite and greater than 0, but got {self.budget_s}")
        require_int("--input-size", self.input_size, named_arch("mobilenetv2").output_stride, MOST_INPUT_SIZE)

    def run(self) -> None:
        """Measure, store and print. Raises UnitError, MeasurementError, ValueError where a unit cannot be measured."""
        entry, console = find_device(self.name, self.devices, option="NAME"), make_console()
        arch = named_arch("mobilenetv2")
        reference = make_reference(arch, "mobilenetv2", self.input_size, 1000, render(entry.setup))
        for unit, key, _ in _units(entry, console):
            sessions = []
            with console.status(f"{unit.name}: session 1 of {self.sessions}", spinner="line") as status:
                for number in range(self.sessions):
                    status.update(f"{unit.name}: session {number + 1} of {self.sessions}")
                    with _leased(unit, key, console):
                        sessions.append(self._session(unit, reference, entry))
                    unit.close()  # a session begins with a new process on the device
            repeatability = repeatability_of(unit.name, sessions)
            path = keep_repeatability(user_state_dir() / "devices", repeatability)
            _print_sessions(console, sessions, repeatability)
            console.print(f"  saved to {path}")

    def _session(self, unit: Unit, reference: Reference, entry: DeviceEntry) -> Calibration:
        return calibrate(unit, reference, entry.setup, budget_s=self.budget_s, session_error=0.0)


def _units(entry: DeviceEntry, console: Console) -> Iterator[tuple[Unit, str, str]]:
    """Yield each unit with the key of its lease and its address, one after another."""
    units = open_units(entry, lambda text: console.print(text))
    for unit, (_, address) in zip(units, unit_addresses(entry), strict=True):
        with contextlib.closing(unit):
            yield unit, lease_key(entry.kind, address), address


def _leased(unit: Unit, key: str, console: Console) -> contextlib.AbstractContextManager[None]:
    return lease(user_state_dir() / "leases", key, unit.name, say=lambda text: console.print(text))


def _check(console: Console, entry: DeviceEntry, unit: Unit, key: str, address: str, reference: Reference) -> None:
    console.print(f"{unit.name}: {entry.kind} {address}".rstrip())
    fingerprint, condition = unit.fingerprint(entry.setup), unit.condition()
    with (
        _leased(unit, key, console),
        unit.session((reference.light_file, reference.file), entry.setup) as session,
    ):
        session.round(False)
        pinned_core, realtime = session.pinned_core, session.realtime
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    repeatability = find_repeatability(user_state_dir() / "devices", fingerprint, entry.setup)
    facts = {
        **_facts(condition),
        **{name: str(value) for name, value in fingerprint.items()},
        "pinned to": "no core" if pinned_core is None else f"core {pinned_core}",
        "priority": "real-time" if realtime else "normal",
        "session error": _session_error(repeatability, entry.name),
    }
    for name, fact in facts.items():
        table.add_row(name, fact)
    console.print(table)
    disturbances = disturbances_of(entry.kind, entry.setup, condition, pinned_core=pinned_core, realtime=realtime)
    console.print("  disturbances and remedies:" if disturbances else "  nothing disturbs measurements")
    for disturbance in disturbances:
        console.print(f"  - {disturbance.what}")
        console.print(f"    {disturbance.remedy}")


def _session_error(repeats: Repeatability | None, name: str) -> str:
    if repeats is None:
        return f"not measured yet (run mnas devices calibrate {name})"
    return f"{100 * repeats.ratio_deviation:.2f} % between {repeats.sessions} sessions ({repeats.at[:10]})"


def _facts(condition: Condition) -> dict[str, str]:
    """Return what the device reports about itself."""
    core = measuring_core(condition)
    battery = None if condition.battery_percent is None else f"{condition.battery_percent:.0f} %"
    clocks = Counter(core.get("max_mhz") for core in condition.cores)
    facts = {
        "model": condition.model,
        "SoC": condition.soc,
        "clocks": ", ".join(f"{count} x {mhz} MHz" for mhz, count in clocks.items() if mhz),
        "governor": core and core.get("governor"),
        "clock now": condition.clock_mhz and f"{condition.clock_mhz} MHz",
        "temperature": condition.temperature_c and f"{condition.temperature_c:.0f} C",
        "throttled": None if condition.throttled is None else "yes" if condition.throttled else "no",
        "battery": battery and battery + (", charging" if condition.charging else ""),
        "load": None if condition.load is None else f"{condition.load:.2f}",
    }
    return {name: str(fact) for name, fact in facts.items() if fact}


def _print_sessions(console: Console, sessions: Sequence[Calibration], repeats: Repeatability) -> None:
    table = Table("session", "reference ms", "95 %", "light / reference", "95 %")
    for number, c in enumerate(sessions, 1):
        table.add_row(
            str(number),
            f"{c.reference_ms:.4g}",
            f"{c.low_ms:.4g}-{c.high_ms:.4g}",
            f"{c.light_ratio:.4f}",
            f"{c.light_ratio_low:.4f}-{c.light_ratio_high:.4f}",
        )
    console.print(table)
    console.print(
        f"  {repeats.name}: {repeats.reference} at {repeats.input_size} px, {repeats.reference_ms:.4g} ms; "
        f"light: the same network at {LIGHT_WIDTH:g} of its width"
    )
    console.print(
        f"  standard deviation between sessions: {100 * repeats.ratio_deviation:.2f} % for ratios, "
        f"{100 * repeats.level_deviation:.2f} % for milliseconds",
    )
    console.print(f"  session error of later measurements: {100 * repeats.session_error:.2f} %")
    if repeats.session_error > HIGH_ERROR:
        name = repeats.name.partition("/")[0]
        console.print(f"  this error is high; run mnas devices check {name}, mend what it reports, and calibrate again")
