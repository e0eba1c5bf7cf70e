"""The devices of a user: `devices.toml`, a table for each, and this machine, which is always there as `host`.

[pixel]
kind = "adb"
address = "28291FDH200ABC"                          # as `adb devices` prints it

[pi]
kind = "ssh"
address = ["pi@shelf-1.local", "pi@shelf-2.local"]  # two of one model, used in parallel
threads = 1
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mnas.folders import user_config_dir
from mnas.latency.latency import Setup
from mnas.latency.unit import Unit
from mnas.readers import read_toml

Kind = Literal["host", "adb", "ssh"]

COMMON_KEYS = ("kind", "runtime", "core", "threads", "batch")
KEYS: dict[str, tuple[str, ...]] = {
    "host": COMMON_KEYS,
    "adb": (*COMMON_KEYS, "address", "benchmark_model", "max_mhz", "adb_server"),
    "ssh": (*COMMON_KEYS, "address", "python"),
}
"""What an entry of each kind may say."""


@dataclass(frozen=True, kw_only=True)
class DeviceEntry:
    """A device as the user describes it; raises ValueError where a field is out of its range."""

    name: str
    """As commands call it."""
    kind: Kind
    """How it is reached."""
    address: tuple[str, ...] = ()
    """Where its units are: serials for adb, [USER@]HOST[:PORT] for ssh, nothing for this machine."""
    runtime: str = "litert"
    """What runs the models there."""
    core: int | Literal["auto"] = "auto"
    """The core that measures; auto: the one with the highest clock."""
    threads: int = 1
    """Threads of the runtime; several are not pinned."""
    batch: int = 1
    """Images of one inference."""
    python: str = "python3"
    """The interpreter on a board, which has the runtime."""
    benchmark_model: str = "device:/data/local/tmp/benchmark_model"
    """Of a phone: that program's path on this machine, or after `device:` on the phone."""
    adb_server: str = "auto"
    """Of a phone: host:port of the adb server; auto: adb's own default."""
    max_mhz: int | Literal["auto"] = "auto"
    """Of a phone: the clock that its core is to run at, else a round is throttled; auto: the core's maximum."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"a device's name must be of letters, digits, '.', '_' and '-', but got {self.name!r}")
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, but got {self.kind!r}")
        if (self.kind == "host") == bool(self.address) or not all(self.address):
            rule = "have no address" if self.kind == "host" else "have an address, or a list of them"
            raise ValueError(f"a device of kind {self.kind} must {rule}, but got {list(self.address)}")
        if twice := sorted({a for a in self.address if self.address.count(a) > 1}):
            raise ValueError(f"the addresses of a device must differ, but got {twice[0]!r} twice")
        if self.core != "auto" and self.core < 0:
            raise ValueError(f"core must be a number from 0 on or auto, but got {self.core}")
        if self.max_mhz != "auto" and self.max_mhz < 1:
            raise ValueError(f"max_mhz must be a number of MHz or auto, but got {self.max_mhz}")
        self.setup  # noqa: B018 (checks runtime, threads and batch)

    @property
    def setup(self) -> Setup:
        """How models are run on it."""
        return Setup(runtime=self.runtime, threads=self.threads, batch=self.batch)


def devices_file() -> Path:
    """Where the user's devices stand."""
    return user_config_dir() / "devices.toml"


def read_devices(file: Path | Literal["auto"] = "auto") -> dict[str, DeviceEntry]:
    """The devices of `file` by name; auto: of `devices_file()`, which need not be there. `host` always is.

    Raises:
        ValueError: the file cannot be read, or what it says is no device; one line with file, entry and known keys.
    """
    path = devices_file() if file == "auto" else file
    host = DeviceEntry(name="host", kind="host")
    if file == "auto" and not path.exists():
        return {"host": host}
    try:
        tables = read_toml(path)
    except OSError as error:
        raise ValueError(f"devices file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # of TOML, and of UTF-8
        raise ValueError(f"devices file {path} must be TOML, but: {error}") from None
    return {"host": host, **{name: _entry(path, name, table) for name, table in tables.items()}}


def find_device(name: str, file: Path | Literal["auto"] = "auto") -> DeviceEntry:
    """The device called `name`. Raises ValueError as `read_devices`, and for an unknown name, with the known ones."""
    devices = read_devices(file)
    if name not in devices:
        path = devices_file() if file == "auto" else file
        raise ValueError(f"device must be one of {', '.join(devices)} ({path} describes them), but got {name!r}")
    return devices[name]


def open_units(entry: DeviceEntry, say: Callable[[str], None]) -> list[Unit]:
    """Its units, one for each address; nothing is connected before the first use.

    `say` is told what they wait for, in whatever thread uses them.

    Raises:
        ImportError: the extra for this kind of device is not installed.
        ValueError: the entry names something that this machine has not.
    """
    if entry.kind == "host":
        from mnas.latency.devices.host import host_unit

        return [host_unit(entry.name, core=entry.core)]
    if entry.kind == "ssh":
        from mnas.latency.devices.ssh import ssh_unit

        return [ssh_unit(name, a, python=entry.python, core=entry.core, say=say) for name, a in unit_addresses(entry)]
    from mnas.latency.devices.adb import adb_unit

    return [
        adb_unit(
            name,
            address,
            core=entry.core,
            benchmark_model=entry.benchmark_model,
            adb_server=None if entry.adb_server == "auto" else entry.adb_server,
            max_mhz=None if entry.max_mhz == "auto" else entry.max_mhz,
            say=say,
        )
        for name, address in unit_addresses(entry)
    ]


def unit_addresses(entry: DeviceEntry) -> list[tuple[str, str]]:
    """(name, address) of its units: the device's own name, or name/0, name/1, ... where there are several."""
    if len(entry.address) <= 1:
        return [(entry.name, "".join(entry.address))]
    return [(f"{entry.name}/{i}", address) for i, address in enumerate(entry.address)]


def _entry(path: Path, name: str, table: object) -> DeviceEntry:
    where = f"{path}, [{name}]"
    if not isinstance(table, dict):
        raise ValueError(f"{path}: a device must be a table with a kind, as in [{name}], but got {name} = {table!r}")
    if "kind" not in table:
        raise ValueError(f"{where}: kind must be given: one of {', '.join(KEYS)}")
    known = KEYS.get(table["kind"] if isinstance(table["kind"], str) else "")
    if known is None:
        raise ValueError(f"{where}: kind must be one of {', '.join(KEYS)}, but got {table['kind']!r}")
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"{where}: keys of kind {table['kind']} are {', '.join(known)}, but got {key!r}")
        if rule := _broken_rule(key, value):
            raise ValueError(f"{where}: {key} must be {rule}, but got {value!r}")
    address = table.get("address", ())
    fields: dict[str, Any] = {**table, "address": (address,) if isinstance(address, str) else tuple(address)}
    try:
        return DeviceEntry(name=name, **fields)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _broken_rule(key: str, value: object) -> str:
    """What a value of `key` must be, if it is not of that type; else nothing."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if key == "address":
        several = isinstance(value, list) and len(value) > 0 and all(isinstance(v, str) for v in value)
        return "" if isinstance(value, str) or several else "a string, or a list of strings"
    if key in ("core", "max_mhz"):
        return "" if whole or value == "auto" else 'a whole number or "auto"'
    if key in ("threads", "batch"):
        return "" if whole else "a whole number"
    return "" if isinstance(value, str) and value else "a string"
