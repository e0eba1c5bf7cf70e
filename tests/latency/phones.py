"""Simulated phones for tests: each phone is a folder, served by an adb server in a separate process."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mnas.latency.devices.adb import AdbUnit, Heat
from mnas.latency.latency import Setup
from tests.latency import adb_server, benchmark_program

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="no adb: scripts/install-test-tools installs it")
CORES = (1803, 1803, 1803, 1803, 2253, 2253, 2802, 2850)
"""Maximum clocks in MHz; the last core is the big one."""
PROPERTIES = {
    "ro.product.model": "Fake Phone 8",
    "ro.soc.model": "Tensor G0",
    "ro.board.platform": "gs000",
    "ro.build.version.release": "15",
    "ro.build.version.incremental": "12345678",
    "ro.product.cpu.abi": "arm64-v8a",
}
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 87
  scale: 100
  voltage: 4221
  temperature: {tenths}
  technology: Li-ion
"""
THERMAL = """IsStatusOverride: false
Thermal Status: {status}
Cached temperatures:
\tTemperature{{mValue=99.0, mType=0, mName=CPU0, mStatus=0}}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{{mValue={cpu_c}, mType=0, mName=CPU0, mStatus=0}}
\tTemperature{{mValue=31.2, mType=3, mName=SKIN, mStatus=0}}
\tTemperature{{mValue=0.0, mType=4, mName=USB, mStatus=0}}
\tTemperature{{mValue=87.0, mType=8, mName=soc, mStatus=0}}
Current cooling devices from HAL:
\tCoolingDevice{{mValue=0, mType=2, mName=TYPE_CPU}}
Temperature static thresholds from HAL:
\tTemperatureThreshold{{mType=3, mName=SKIN, mHotThrottlingThresholds=[NaN, 39.0, 43.0]}}
"""
PROGRAMS = {
    "getprop": 'sed -n "s/^$1=//p" "$PHONE_ROOT/properties"',
    "dumpsys": 'cat "$PHONE_ROOT/dumpsys/$1" 2>/dev/null || echo "Can\'t find service: $1"',
    "taskset": 'echo "$1" >>"$PHONE_ROOT/pinned"; shift; exec "$@"',
}


@dataclass(frozen=True)
class Phone:
    """A phone, represented by its folder."""

    root: Path

    @property
    def tmp(self) -> Path:
        """Folder that the phone calls /data/local/tmp."""
        return self.root / "data/local/tmp"

    def files(self) -> list[str]:
        """Names of the files in /data/local/tmp."""
        return sorted(str(path.relative_to(self.tmp)) for path in self.tmp.rglob("*"))

    def fault(self, kind: str, *calls: int) -> None:
        """Make benchmark_model fail at the given calls, counted from now."""
        (self.root / "calls").write_text("0")
        (self.root / "fault").write_text(json.dumps({"kind": kind, "calls": calls}))

    def calls(self) -> int:
        """Return the number of models loaded since the last `fault`."""
        return int((self.root / "calls").read_text())

    def heat(self, *, battery_c: float = 29.4, status: int = 0, cpu_c: float = 41.5) -> None:
        """Set the temperatures that the phone reports."""
        (self.root / "dumpsys/battery").write_text(BATTERY.format(tenths=round(battery_c * 10)))
        (self.root / "dumpsys/thermalservice").write_text(THERMAL.format(status=status, cpu_c=cpu_c))

    def clock(self, *, cap_mhz: int, core: int = 7) -> None:
        """Limit a core's clock."""
        for name in ("scaling_max_freq", "scaling_cur_freq"):
            (self.root / f"sys/devices/system/cpu/cpu{core}/cpufreq/{name}").write_text(f"{cap_mhz}000\n")


def make_phone(root: Path) -> Phone:
    """Return a cool phone at 87 % charge, with four small, two middle, one large and one larger core."""
    for name in ("data/local/tmp", "bin", "dumpsys"):
        (root / name).mkdir(parents=True)
    for number, mhz in enumerate(CORES):
        folder = root / f"sys/devices/system/cpu/cpu{number}/cpufreq"
        folder.mkdir(parents=True)
        for name in ("cpuinfo_max_freq", "scaling_max_freq", "scaling_cur_freq"):
            (folder / name).write_text(f"{mhz}000\n")
        (folder / "scaling_governor").write_text("sched_pixel\n")
    for number, (kind, milli) in enumerate((("BIG", 43000), ("battery", 29400))):
        folder = root / f"sys/class/thermal/thermal_zone{number}"
        folder.mkdir(parents=True)
        (folder / "type").write_text(f"{kind}\n")
        (folder / "temp").write_text(f"{milli}\n")
    (root / "properties").write_text("".join(f"{name}={value}\n" for name, value in PROPERTIES.items()))
    for name, program in PROGRAMS.items():
        (root / "bin" / name).write_text(f"#!/bin/sh\n{program}\n")
        (root / "bin" / name).chmod(0o755)
    phone = Phone(root)
    phone.heat()
    return phone


@dataclass(frozen=True)
class Phones:
    """A running server."""

    port: int
    file: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def plug_in(self, **phones: Phone | None) -> None:
        """Connect exactly these phones, each given as serial=phone."""
        self.tell({serial: {"state": "device", "root": str(phone.root)} for serial, phone in phones.items()})

    def tell(self, phones: dict[str, dict]) -> None:
        """Set the phones and states in the server's file."""
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(phones))
        new.replace(self.file)


@contextlib.contextmanager
def run_phones(folder: Path) -> Iterator[Phones]:
    """Run an adb server without phones, and the server that forks `benchmark_model`, while the context lasts."""
    file = folder / "phones.json"
    file.write_text("{}")
    with contextlib.ExitStack() as stack:
        zygote = _start(stack, benchmark_program.__file__)
        port = _start(stack, adb_server.__file__, str(file), PHONE_ZYGOTE=str(zygote))
        yield Phones(port, file)


def write_program(folder: Path) -> Path:
    """Write `benchmark_model` as the user's file."""
    path = folder / "benchmark_model"
    path.write_bytes(benchmark_program.client())
    path.chmod(0o755)
    return path


def _start(stack: contextlib.ExitStack, *words: str, **environment: str) -> int:
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # LiteRT prints a greeting
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", **environment},
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    assert process.stdout is not None
    stack.enter_context(process.stdout)
    return int(process.stdout.readline())


def make_unit(phones, program, address="FAKE0001", **options):
    said = []
    options = {"heat": Heat(wait_s=0.3, poll_s=0.05), **options}
    unit = AdbUnit(
        "pixel", address, benchmark_model=str(program), adb_server=phones.address, say=said.append, **options
    )
    unit.said = said
    return unit


def run_rounds(unit, models, rounds=1, setup=None):
    with unit.session(models, setup or Setup()) as session:
        return [session.round(number % 2 == 1) for number in range(rounds)]


def runs_on(phone):
    shown = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True).stdout
    return str(phone.tmp) in shown


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
